//! Viewing and managing: health, figures, channels and clients.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::cluster::ClusterBody;
use super::conditions;
use super::context::Context;
use super::errors::Problem;
use super::parameters;
use super::readiness;
use super::server_stats::ServerBody;
use super::stats_query::StatsQuery;
use pushwheel::{
    Channel, ChannelManager, ChannelStats, ClientInfo, Condition, EventId, Metrics, PublishError,
    Request, Response, Stats,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /health`
pub(super) fn health(request: &Request) -> Result<Response, Problem> {
    match request.is_draining() {
        false => Ok(Response::json(&json!({"status": "ok"}))),
        true => Err(Problem::draining()),
    }
}

/// `GET /ready`
pub(super) fn ready(request: &Request, context: &Context) -> Result<Response, Problem> {
    match readiness::problem(request, context, &request.metrics()) {
        None => Ok(Response::json(&json!({"status": "ready"}))),
        Some(problem) => Err(problem),
    }
}

/// `GET /channels`
pub(super) fn names(request: &Request, context: &Context) -> Result<Response, Problem> {
    let names = request.channels().names();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    Ok(context.of_this_node(request, Response::json(&names)))
}

/// `GET /stats`, `GET /stats?totals` without the channels, and both with `server`
pub(super) fn stats(request: &Request, context: &Context) -> Result<Response, Problem> {
    let metrics = request.metrics();
    let has = |name: &str| {
        let value = request.query(name);
        value.map_or(Ok(false), |value| parameters::boolean(name, &value))
    };
    let server = has("server")?.then(|| ServerBody::of(request, context, &metrics));
    if has("totals")? {
        return Ok(Response::json(&TotalsAlone {
            version: VERSION,
            totals: TotalsBody::new(&metrics, request.channels()),
            server,
        }));
    }
    let query = StatsQuery::of(request)?;
    let totals = TotalsBody::new(&metrics, request.channels());
    let stats = request.channels().stats();
    let body = StatsBody::new(totals, server, &stats, &query);
    Ok(Response::json(&body))
}

/// `GET /channels/{channel}/clients`, with `?count` or without
pub(super) fn clients(request: &Request, context: &Context) -> Result<Response, Problem> {
    let channel = channel(request)?;
    let (conditions, is_count) = selection(request, Some("count"))?;
    if is_count {
        let clients = channel.count_where(&conditions);
        return Ok(count(clients, context.nodes(request)));
    }
    let clients = channel.clients_where(&conditions);
    let clients: Vec<ClientBody> = clients.iter().map(ClientBody::from).collect();
    Ok(context.of_this_node(request, Response::json(&clients)))
}

/// Returns the answer of a number of clients, of this node only if there are others.
fn count(clients: usize, nodes: Option<usize>) -> Response {
    Response::json(&CountBody { clients, nodes })
}

/// `DELETE /channels/{channel}/clients?where.FIELD=VALUE`
pub(super) fn disconnect_some(request: &Request, context: &Context) -> Result<Response, Problem> {
    let channel = channel(request)?;
    let (conditions, _) = selection(request, None)?;
    if conditions.is_empty() {
        return Err(Problem::no_condition());
    }
    let clients = channel.disconnect_where(&conditions);
    Ok(count(clients, context.nodes(request)))
}

/// `GET /channels/{channel}/clients/{id}`
pub(super) fn client(request: &Request) -> Result<Response, Problem> {
    let channel = channel(request)?;
    let id = request.param("id").unwrap_or_default();
    let client = channel.client(id);
    let client = client.ok_or_else(|| Problem::no_client(channel.name(), id))?;
    Ok(Response::json(&ClientBody::from(&client)))
}

/// `DELETE /channels/{channel}/clients/{id}`
pub(super) fn disconnect(request: &Request, context: &Context) -> Result<Response, Problem> {
    let channel = channel_of_any_node(request, context)?;
    only_parameter(request, None)?;
    let id = request.param("id").unwrap_or_default();
    match channel.disconnect(id) {
        true => Ok(count(1, context.nodes(request))),
        // Another node may have it.
        false if context.cluster.is_some() => Ok(count(0, context.nodes(request)).with_status(202)),
        false => Err(Problem::no_client(channel.name(), id)),
    }
}

/// `DELETE /channels/{channel}`, with `?finish` or without
pub(super) fn remove(request: &Request, context: &Context) -> Result<Response, Problem> {
    let channel = channel_of_any_node(request, context)?;
    let finishes = only_parameter(request, Some("finish"))?;
    let nodes = context.nodes(request);
    let answer = move |clients: usize| count(clients, nodes);
    if context.has_log {
        return Ok(Response::deferred(move |responder| {
            let then = move |removed: Result<usize, PublishError>| {
                responder.respond(removed.map(answer));
            };
            match finishes {
                true => channel.finish_then(None, then),
                false => channel.close_then(then),
            }
        }));
    }
    Ok(answer(match finishes {
        true => channel.finish(None)?,
        false => channel.close(),
    }))
}

/// `DELETE /channels?empty`
pub(super) fn remove_empty(request: &Request, context: &Context) -> Result<Response, Problem> {
    if !only_parameter(request, Some("empty"))? {
        return Err(Problem::no_empty());
    }
    if context.cluster.is_some() {
        return Err(Problem::cluster_unsupported());
    }
    let channels = request.channels().remove_empty();
    Ok(Response::json(&json!({"channels": channels})))
}

/// Returns the channel of the path if it exists.
pub(super) fn channel(request: &Request) -> Result<Channel, Problem> {
    let name = request.param("channel").unwrap_or_default();
    ChannelManager::check_name(name)?;
    let channel = request.channels().get(name);
    channel.ok_or_else(|| Problem::no_channel(name))
}

/// Returns the channel of the path. In a cluster it may be one of which only another node has
/// clients, so it is made if it does not exist here.
fn channel_of_any_node(request: &Request, context: &Context) -> Result<Channel, Problem> {
    match &context.cluster {
        None => channel(request),
        Some(_) => {
            let name = request.param("channel").unwrap_or_default();
            Ok(request.channels().get_or_create(name)?)
        }
    }
}

/// Whether the query has the only parameter that a DELETE may have. Refuses all others: with
/// a misspelled `finish` the channel would be removed instead of finished.
fn only_parameter(request: &Request, known: Option<&str>) -> Result<bool, Problem> {
    let mut is_given = false;
    for (name, value) in request.query_pairs() {
        if known != Some(&*name) {
            return Err(Problem::parameter_of_delete(&name, known));
        }
        is_given = parameters::boolean(&name, &value)?;
    }
    Ok(is_given)
}

/// Returns the conditions of the query, and whether it has the flag. Refuses all other
/// parameters: with a misspelled condition, the request would be about other clients.
fn selection(request: &Request, known: Option<&str>) -> Result<(Vec<Condition>, bool), Problem> {
    let (mut conditions, mut is_given) = (Vec::new(), false);
    for (name, value) in request.query_pairs() {
        match conditions::condition(&name, &value)? {
            Some(condition) => conditions::add(&mut conditions, condition)?,
            None if known == Some(&*name) => is_given = parameters::boolean(&name, &value)?,
            None => return Err(Problem::parameter_of_clients(&name)),
        }
    }
    Ok((conditions, is_given))
}

#[derive(Serialize)]
struct StatsBody<'a> {
    version: &'static str,
    channels: usize,
    clients: usize,
    /// Of the channels that exist now.
    published: u64,
    delivered: u64,
    gaps: u64,
    history: TotalHistoryBody,
    /// The number of channels that `search` has found.
    found: usize,
    /// Since the start, including channels that were removed.
    totals: TotalsBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerBody>,
    channel_stats: Vec<ChannelBody<'a>>,
}

#[derive(Serialize)]
struct TotalsAlone {
    version: &'static str,
    #[serde(flatten)]
    totals: TotalsBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerBody>,
}

/// Figures of the whole server, at a cost that does not grow with it.
#[derive(Serialize)]
struct TotalsBody {
    uptime_s: u64,
    connections: u64,
    streams: u64,
    behind: u64,
    published: u64,
    delivered: u64,
    gaps: u64,
    history_bytes: u64,
    history_bytes_max: Option<u64>,
    evicted: u64,
    bytes_read: u64,
    bytes_written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterBody>,
}

/// A number of clients.
#[derive(Serialize)]
struct CountBody {
    clients: usize,
    /// The number of nodes: the clients are those of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

#[derive(Serialize)]
struct JournalBody {
    writable: bool,
    bytes: u64,
    /// The number of changes that wait to be written.
    queued: usize,
    refused: u64,
}

#[derive(Serialize)]
struct TotalHistoryBody {
    events: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct ChannelBody<'a> {
    name: &'a str,
    clients: usize,
    history: HistoryBody,
    published: u64,
    delivered: u64,
    gaps: u64,
    keys: usize,
    keys_evicted: u64,
}

#[derive(Serialize)]
struct HistoryBody {
    events: usize,
    bytes: usize,
    oldest: Option<String>,
    newest: Option<String>,
}

#[derive(Serialize)]
struct ClientBody<'a> {
    id: String,
    metadata: &'a Value,
    address: String,
    since: Option<String>,
    behind: usize,
}

impl<'a> StatsBody<'a> {
    /// Returns the totals of all channels, and the figures of the selected ones.
    fn new(
        totals: TotalsBody,
        server: Option<ServerBody>,
        stats: &'a Stats,
        query: &StatsQuery,
    ) -> Self {
        let all = &stats.channel_stats;
        let (selected, found) = query.select(all);
        StatsBody {
            version: VERSION,
            channels: stats.channels,
            clients: stats.clients,
            published: all.iter().map(|channel| channel.published).sum(),
            delivered: all.iter().map(|channel| channel.delivered).sum(),
            gaps: all.iter().map(|channel| channel.gaps).sum(),
            history: TotalHistoryBody {
                events: all.iter().map(|channel| channel.history_events).sum(),
                bytes: all.iter().map(|channel| channel.history_bytes).sum(),
            },
            found,
            totals,
            server,
            channel_stats: selected.into_iter().map(ChannelBody::from).collect(),
        }
    }
}

impl TotalsBody {
    fn new(metrics: &Metrics, channels: &ChannelManager) -> Self {
        let journal = channels.journal_status();
        TotalsBody {
            uptime_s: metrics.uptime.as_secs(),
            connections: metrics.connections,
            streams: metrics.clients,
            behind: metrics.clients_behind,
            published: metrics.events_published,
            delivered: metrics.deliveries,
            gaps: metrics.gaps,
            history_bytes: metrics.log_bytes,
            history_bytes_max: metrics.log_bytes_max,
            evicted: metrics.events_evicted,
            bytes_read: metrics.bytes_read,
            bytes_written: metrics.bytes_written,
            journal: journal.map(|journal| JournalBody {
                writable: journal.is_writable,
                bytes: journal.bytes,
                queued: journal.queued,
                refused: journal.refused,
            }),
            cluster: channels.cluster_status().map(ClusterBody::from),
        }
    }
}

impl<'a> From<&'a ChannelStats> for ChannelBody<'a> {
    fn from(stats: &'a ChannelStats) -> Self {
        ChannelBody {
            name: &stats.name,
            clients: stats.clients,
            history: HistoryBody {
                events: stats.history_events,
                bytes: stats.history_bytes,
                oldest: stats.oldest.as_ref().map(EventId::to_string),
                newest: stats.newest.as_ref().map(EventId::to_string),
            },
            published: stats.published,
            delivered: stats.delivered,
            gaps: stats.gaps,
            keys: stats.keys,
            keys_evicted: stats.keys_evicted,
        }
    }
}

impl<'a> From<&'a ClientInfo> for ClientBody<'a> {
    fn from(client: &'a ClientInfo) -> Self {
        ClientBody {
            id: client.id.to_string(),
            metadata: &client.metadata,
            // Without a port in the header of a proxy it is 0.
            address: match client.address.port() {
                0 => client.address.ip().to_string(),
                _ => client.address.to_string(),
            },
            since: rfc3339(client.since),
            behind: client.behind,
        }
    }
}

/// Returns a time as `2026-02-03T04:05:06Z`, or `None` beyond the year 9999.
fn rfc3339(time: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(time).ok()?;
    let seconds = jiff::Timestamp::from_second(time.as_second()).ok()?;
    Some(seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339_in_whole_seconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_770_091_506_789);
        assert_eq!(rfc3339(time).as_deref(), Some("2026-02-03T04:05:06Z"));
    }
}

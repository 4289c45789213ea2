//! Publishing with POST.
//!
//! A request says whom the events are for (its path, `client`, `where.FIELD`)
//! and what they are (its body, as its `Content-Type` says). Everything is
//! checked before anything is published.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::errors::Problem;
use super::journal;
use super::live::Live;
use super::message;
use super::metadata::METADATA_VALUES_MAX;
use crate::{
    Channel, ClientId, Condition, Event, EventId, PublishError, Published, Request, Response,
};

/// `POST /channels/{channel}`
pub(super) fn to_one(request: &Request, live: &Live) -> Result<Response, Problem> {
    let wishes = Wishes::of(request, live)?;
    let events = Events::of(request, &wishes)?;
    events.pass(live, request)?;
    let name = request.param("channel").unwrap_or_default();
    let publish = |channel: &Channel| match (&events, &wishes.target) {
        (Events::One(event), Target::Everybody) => channel.broadcast(event),
        (Events::One(event), Target::Client(id)) => channel.send(id, event),
        (Events::One(event), Target::Where(all)) => channel.broadcast_where(all, event),
        (Events::Batch(events), Target::Everybody) => channel.broadcast_batch(events),
        (Events::Batch(events), Target::Client(id)) => channel.send_batch(id, events),
        (Events::Batch(events), Target::Where(all)) => channel.broadcast_batch_where(all, events),
    };
    let channels = request.channels();
    let published = match publish(&channels.get_or_create(name)?) {
        // Removed by another thread just now: it comes to be anew.
        Err(PublishError::Closed) => publish(&channels.get_or_create(name)?)?,
        published => published?,
    };
    journal::tell_published(live, request, Some(name), &published);
    Ok(answer(&published))
}

/// `POST /channels`
pub(super) fn to_all(request: &Request, live: &Live) -> Result<Response, Problem> {
    let wishes = Wishes::of(request, live)?;
    if !matches!(wishes.target, Target::Everybody) {
        return Err(Problem::target_of_all());
    }
    let events = Events::of(request, &wishes)?;
    events.pass(live, request)?;
    let published = match events {
        Events::One(event) => request.channels().broadcast_all(event)?,
        Events::Batch(events) => request.channels().broadcast_batch_all(&events)?,
    };
    journal::tell_published(live, request, None, &published);
    Ok(answer(&published))
}

fn answer(published: &Published) -> Response {
    Response::json(&Answer {
        id: &published.id,
        events: published.events,
        clients: published.clients,
    })
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a EventId,
    events: usize,
    clients: usize,
}

/// Writes a value as its text, straight into the output.
pub(super) fn as_text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// For whom the events are.
enum Target {
    Everybody,
    Client(ClientId),
    /// All of these hold.
    Where(Vec<Condition>),
}

/// What the query says.
struct Wishes<'a> {
    target: Target,
    event: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    retry: Option<Duration>,
    /// For conflation.
    key: Option<Cow<'a, str>>,
}

impl<'a> Wishes<'a> {
    fn of(request: &'a Request, live: &Live) -> Result<Self, Problem> {
        let rules = live.rules();
        let mut wishes = Wishes {
            target: Target::Everybody,
            event: None,
            id: None,
            retry: None,
            key: None,
        };
        for (name, value) in request.query_pairs() {
            match &*name {
                "client" => wishes.aim_at(&value)?,
                "event" => wishes.event = Some(value),
                "id" => wishes.id = Some(value),
                "retry" => wishes.retry = Some(retry(&value)?),
                other if rules.access.is_token_parameter(other) => {}
                "key" => wishes.key = Some(value),
                other => match other.strip_prefix("where.") {
                    Some(field) if !field.is_empty() => wishes.narrow(field, &value)?,
                    _ => return Err(Problem::unknown_parameter(other)),
                },
            }
        }
        Ok(wishes)
    }

    fn aim_at(&mut self, id: &str) -> Result<(), Problem> {
        if !matches!(self.target, Target::Everybody) {
            return Err(Problem::two_targets());
        }
        let id = ClientId::new(id).map_err(Problem::client_id)?;
        self.target = Target::Client(id);
        Ok(())
    }

    fn narrow(&mut self, field: &str, value: &str) -> Result<(), Problem> {
        let condition = Condition::new(field, value);
        match &mut self.target {
            Target::Everybody => self.target = Target::Where(vec![condition]),
            Target::Where(conditions) if conditions.len() == METADATA_VALUES_MAX => {
                return Err(Problem::too_many_conditions());
            }
            Target::Where(conditions) => conditions.push(condition),
            Target::Client(_) => return Err(Problem::two_targets()),
        }
        Ok(())
    }

    /// With a body of JSON, the event is all in there.
    fn leave_the_event_alone(&self) -> Result<(), Problem> {
        let misplaced = [
            ("event", self.event.is_some()),
            ("id", self.id.is_some()),
            ("retry", self.retry.is_some()),
            ("key", self.key.is_some()),
        ];
        match misplaced.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(Problem::misplaced_parameter(name)),
            None => Ok(()),
        }
    }
}

fn retry(text: &str) -> Result<Duration, Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let ms = text.parse().ok().filter(|_| is_number);
    let ms = ms.ok_or_else(|| Problem::parameter("retry", "a whole number of milliseconds"))?;
    Ok(Duration::from_millis(ms))
}

/// What is published.
enum Events<'a> {
    One(Event<'a>),
    Batch(Vec<Event<'a>>),
}

impl<'a> Events<'a> {
    fn of(request: &'a Request, wishes: &'a Wishes<'a>) -> Result<Self, Problem> {
        if let Some(encoding) = request.header("content-encoding")
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(Problem::encoded(encoding));
        }
        let body = request.text()?;
        let media_type = request.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            wishes.leave_the_event_alone()?;
            return Ok(Events::One(message::from_json(body)?));
        }
        if media_type.eq_ignore_ascii_case("application/x-ndjson") {
            wishes.leave_the_event_alone()?;
            return Ok(Events::Batch(message::from_lines(body)?));
        }
        let mut event = Event::message(body);
        if let Some(name) = &wishes.event {
            event = event.with_name(&**name);
        }
        if let Some(id) = &wishes.id {
            event = event.with_id(&**id);
        }
        if let Some(retry) = wishes.retry {
            event = event.with_retry(retry);
        }
        if let Some(key) = &wishes.key {
            event = event.with_key(&**key);
        }
        Ok(Events::One(event))
    }

    /// Lets them pass if their publisher's address may publish so many.
    fn pass(&self, live: &Live, request: &Request) -> Result<(), Problem> {
        let count = match self {
            Events::One(_) => 1,
            Events::Batch(events) => events.len(),
        };
        let rate = live.rules().publish_rate_per_address;
        live.limiter
            .admit(rate, request.client_address().ip(), count)
            .map_err(|retry_after| PublishError::RateLimited { retry_after }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_a_whole_number_of_milliseconds() {
        assert_eq!(retry("1500"), Ok(Duration::from_millis(1500)));
        for bad in ["", "soon", "1.5", "-1", "+1", "99999999999999999999"] {
            assert!(retry(bad).is_err(), "{bad}");
        }
    }
}

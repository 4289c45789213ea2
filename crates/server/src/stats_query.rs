//! The query of `GET /stats`: the channels in the response, and their order.
//!
//! With very many channels the figures of all are megabytes. The page at `/` asks each
//! second for the few channels that it shows. The totals always count all channels.

use std::cmp::Reverse;

use super::errors::Problem;
use super::parameters;
use pushwheel::{ChannelStats, Request};

/// The parameters of a query. Without any: all channels by name.
#[derive(Debug)]
pub(super) struct StatsQuery {
    /// `top=N`: maximum channels.
    top: usize,
    /// `by=FIGURE`: in descending order of the figure.
    by: By,
    /// `search=TEXT`: channels whose names contain the text in any case. In lowercase.
    search: String,
    /// `channel=NAME`: a channel that is always in the response if it exists, as the last
    /// one if the other parameters do not select it.
    channel: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum By {
    Name,
    Clients,
    Published,
    Delivered,
    Gaps,
    Bytes,
}

impl StatsQuery {
    pub(super) fn of(request: &Request) -> Result<StatsQuery, Problem> {
        let text = |name| request.query(name).map(|value| value.into_owned());
        Ok(StatsQuery {
            top: request.query("top").map_or(Ok(usize::MAX), |n| top(&n))?,
            by: request
                .query("by")
                .map_or(Ok(By::Name), |figure| by(&figure))?,
            search: text("search").unwrap_or_default().to_lowercase(),
            channel: text("channel"),
        })
    }

    /// Selects from `all`, which are in the order of their names. Returns the selected
    /// channels, and how many the search has found.
    pub(super) fn select<'a>(&self, all: &'a [ChannelStats]) -> (Vec<&'a ChannelStats>, usize) {
        let is_found = |stats: &&ChannelStats| {
            self.search.is_empty() || stats.name.to_lowercase().contains(&self.search)
        };
        let mut selected: Vec<_> = all.iter().filter(is_found).collect();
        let found = selected.len();
        self.by.sort(&mut selected);
        selected.truncate(self.top);
        if let Some(name) = &self.channel
            && !selected.iter().any(|stats| *stats.name == **name)
        {
            selected.extend(all.iter().find(|stats| *stats.name == **name));
        }
        (selected, found)
    }
}

impl By {
    /// Channels with equal figures stay in the order of their names.
    fn sort(self, selected: &mut [&ChannelStats]) {
        match self {
            By::Name => {}
            By::Clients => selected.sort_by_key(|stats| Reverse(stats.clients)),
            By::Published => selected.sort_by_key(|stats| Reverse(stats.published)),
            By::Delivered => selected.sort_by_key(|stats| Reverse(stats.delivered)),
            By::Gaps => selected.sort_by_key(|stats| Reverse(stats.gaps)),
            By::Bytes => selected.sort_by_key(|stats| Reverse(stats.history_bytes)),
        }
    }
}

fn top(text: &str) -> Result<usize, Problem> {
    let count = parameters::whole(text);
    count.ok_or_else(|| Problem::parameter("top", "a number of channels, as in ?top=100"))
}

fn by(text: &str) -> Result<By, Problem> {
    match text {
        "name" => Ok(By::Name),
        "clients" => Ok(By::Clients),
        "published" => Ok(By::Published),
        "delivered" => Ok(By::Delivered),
        "gaps" => Ok(By::Gaps),
        "bytes" => Ok(By::Bytes),
        _ => Err(Problem::parameter(
            "by",
            "name, clients, published, delivered, gaps or bytes",
        )),
    }
}

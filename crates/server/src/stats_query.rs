//! Of which channels `GET /stats` tells, and in which order.
//!
//! With very many channels the figures of all are megabytes. A page that looks
//! every second asks for the few that it shows; the totals are of all channels
//! whatever it asks for.

use std::cmp::Reverse;

use super::errors::Problem;
use pushwheel::{ChannelStats, Request};

/// What the query asks for. Without any parameter: all, by name.
#[derive(Debug)]
pub(super) struct Choice {
    /// `top=N`: at most so many.
    top: usize,
    /// `by=FIGURE`: those with the most of it come first.
    by: By,
    /// `search=TEXT`: those whose names contain it, whatever the case.
    search: String,
    /// `channel=NAME`: told of in any case, if it is there. It comes last when
    /// it is not among the others.
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

impl Choice {
    pub(super) fn of(request: &Request) -> Result<Choice, Problem> {
        let text = |name| request.query(name).map(|value| value.into_owned());
        Ok(Choice {
            top: request.query("top").map_or(Ok(usize::MAX), |n| top(&n))?,
            by: request
                .query("by")
                .map_or(Ok(By::Name), |figure| by(&figure))?,
            search: text("search").unwrap_or_default().to_lowercase(),
            channel: text("channel"),
        })
    }

    /// The channels asked for, of all in the order of their names; and how
    /// many the search has found.
    pub(super) fn among<'a>(&self, all: &'a [ChannelStats]) -> (Vec<&'a ChannelStats>, usize) {
        let is_found = |stats: &&ChannelStats| {
            self.search.is_empty() || stats.name.to_lowercase().contains(&self.search)
        };
        let mut chosen: Vec<_> = all.iter().filter(is_found).collect();
        let found = chosen.len();
        self.by.sort(&mut chosen);
        chosen.truncate(self.top);
        if let Some(name) = &self.channel
            && !chosen.iter().any(|stats| *stats.name == **name)
        {
            chosen.extend(all.iter().find(|stats| *stats.name == **name));
        }
        (chosen, found)
    }
}

impl By {
    /// Those who are equal keep the order of their names.
    fn sort(self, chosen: &mut [&ChannelStats]) {
        match self {
            By::Name => {}
            By::Clients => chosen.sort_by_key(|stats| Reverse(stats.clients)),
            By::Published => chosen.sort_by_key(|stats| Reverse(stats.published)),
            By::Delivered => chosen.sort_by_key(|stats| Reverse(stats.delivered)),
            By::Gaps => chosen.sort_by_key(|stats| Reverse(stats.gaps)),
            By::Bytes => chosen.sort_by_key(|stats| Reverse(stats.history_bytes)),
        }
    }
}

fn top(text: &str) -> Result<usize, Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|_| is_number);
    count.ok_or_else(|| Problem::parameter("top", "how many channels you want, as in ?top=100"))
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

//! The channels that a query names, one with each parameter `channel`.

use std::borrow::Cow;

use pushwheel::Request;

pub(super) fn of(request: &Request) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = request.query_pairs();
    let named = pairs.filter(|(name, _)| name == "channel");
    named.map(|(_, value)| value)
}

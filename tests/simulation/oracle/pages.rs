//! What clients read that ask for one page after another, and wait for it.

use serde_json::Value;

use super::{Oracle, Publication, Want};

impl Oracle {
    /// A client has read a page.
    pub fn on_page(&mut self, number: usize, page: &Value) {
        self.note_the_over();
        self.count("pages");
        let stream = &self.streams[number];
        let has_gap = !page["gap"].is_null();
        // Where an own id leads to, another page has said.
        let before = match (&stream.want, stream.joined.is_some()) {
            (_, true) => stream.position,
            (Want::After(id), false) => self.parse(id).filter(|at| *at <= self.sequence),
            _ => None,
        };
        let before = before.filter(|_| !has_gap);
        let (mut reached, mut wrong) = (None, None);
        for event in page["events"].as_array().into_iter().flatten() {
            self.count("events on pages");
            let after = reached.or(before);
            match self.event_of_page(number, event, after) {
                Ok(at) => {
                    let lost = before.and_then(|_| self.lost_on_page(number, after, at - 1));
                    wrong = wrong.or(lost);
                    reached = Some(at);
                }
                Err(why) => wrong = wrong.or(Some(why)),
            }
        }
        let newest = page["newest"].as_str().unwrap_or_default();
        let of_last = page["events"].as_array().and_then(|events| events.last());
        let is_of_last = of_last.is_some_and(|last| last["id"] == newest);
        let at = match is_of_last {
            true => reached,
            false => self.parse(newest),
        };
        let after = reached.or(before);
        if let Some(at) = at {
            // The newest event of the channel may be older than the position.
            let leads_back = after.is_some_and(|after| at < after);
            if leads_back
                && self
                    .lost_on_page(number, Some(at), after.unwrap_or(at))
                    .is_some()
            {
                wrong = wrong.or(Some(format!("it leads back to {newest}")));
            }
            let lost = before.and_then(|_| self.lost_on_page(number, after, at));
            wrong = wrong.or(lost);
        }
        let topics = self.streams[number].topics.iter();
        let mut topics = topics.map(|topic| &self.topics[*topic]);
        if page["finished"] == true && topics.any(|t| !t.is_finished() && t.is_there()) {
            wrong = wrong.or(Some("it is said to be the last".to_owned()));
        }
        if has_gap {
            self.count("pages with a gap");
        }
        let stream = &mut self.streams[number];
        stream.position = at;
        stream.has_begun = true;
        if let Some(wrong) = wrong {
            let want = &self.streams[number].want;
            let wrong = format!("the page of stream {number} ({want:?}): {wrong}: {page}");
            self.fail(wrong);
        }
    }

    /// Returns the number of an event on a page, which comes after `after`.
    fn event_of_page(
        &self,
        number: usize,
        event: &Value,
        after: Option<u64>,
    ) -> Result<u64, String> {
        let stream = &self.streams[number];
        let id = event["id"].as_str().unwrap_or_default();
        let numbers = self.by_id.get(id).into_iter().flatten();
        let events = numbers.map(|number| &self.published[*number]);
        let same = events.filter(|published| {
            let name = event["event"].as_str().unwrap_or("message");
            let is_same = event["data"] == published.data.as_str() && name == published.name;
            // The order of a gap's fields is of no account.
            is_same || published.name == super::GAP
        });
        // An event for several channels has an entry for each of them.
        let is_later = |at: u64| after.is_none_or(|after| at > after);
        let likeness = |published: &&Publication| {
            let is_right = self.is_for(stream, published);
            (is_right, is_later(published.sequence))
        };
        let found = same.max_by_key(likeness);
        match found {
            None => Err(format!("{event} was not published")),
            Some(found) if !self.is_for(stream, found) => Err(format!("{id} is not for it")),
            Some(found) if after.is_some_and(|after| found.sequence <= after) => Err(format!(
                "{id} comes again, or out of order, after {after:?}"
            )),
            Some(found) => Ok(found.sequence),
        }
    }

    /// Returns what a page lacks between two numbers.
    fn lost_on_page(&self, number: usize, after: Option<u64>, through: u64) -> Option<String> {
        let stream = &self.streams[number];
        let mut between = self.between(after?, through.max(after?));
        let is_lost = |event: &&Publication| {
            self.is_for(stream, event)
                && !self.is_conflated(event)
                && !self.is_before_first_record(event)
        };
        let lost = between.find(is_lost)?;
        Some(format!("{} is lost behind {after:?}", lost.id))
    }
}

//! What is left when a process has ended and another one goes on with its log.

use pushwheel::internals::LoggedBlock;
use pushwheel::{Channel, ChannelManager, DisconnectReason, Responder, Response, Sink};

use super::publishing::{Draft, Everywhere};
use super::{LastOfSink, Oracle};

/// What a log has after the end of a process.
pub struct Recovered {
    /// The blocks that no snapshot has replaced.
    pub blocks: Vec<LoggedBlock>,
    /// The number of the record that says that events may be lost, and the newest number
    /// before it.
    pub lost: Option<(u64, u64)>,
    /// Whether the machine has ended too, and may have lost what was not synced.
    pub may_have_lost: bool,
}

/// What a process holds, to be dropped.
type Held = (Vec<(Responder, Response)>, Vec<Sink>);

impl Oracle {
    /// The process ends in this moment: its streams, and what waits.
    pub fn end_process(&mut self) -> Held {
        let now = self.now();
        self.has_ended = true;
        self.count("processes that end");
        let mut sinks = Vec::new();
        for stream in &mut self.streams {
            stream.is_cut = true;
            if stream.gone.is_none() {
                stream.is_over_at = Some(now);
                if stream.joined.is_some() {
                    stream.gone = Some((DisconnectReason::Gone, now));
                }
            }
            if let Some(sink) = stream.sink.as_mut().filter(|sink| sink.last.is_none()) {
                sinks.extend(sink.handle.take());
                let (ended, is_late) = (None, true);
                sink.last = Some(LastOfSink { ended, is_late });
            }
        }
        for topic in &mut self.topics {
            topic.members.clear();
        }
        self.sent_away.clear();
        self.shutdown = None;
        self.forget_outcomes();
        (std::mem::take(&mut self.responders), sinks)
    }

    /// Another process goes on with the log.
    pub fn recover(&mut self, manager: &ChannelManager, recovered: &Recovered) {
        self.manager = manager.clone();
        self.has_ended = false;
        self.began_at = self.now();
        let (sequence, synced) = (self.sequence, self.synced);
        if recovered.lost.is_some() && !recovered.may_have_lost {
            self.fail("events are said to be lost after the end of a process alone");
        }
        if let Some((_, newest)) = recovered.lost {
            if newest < synced {
                self.fail(format!(
                    "{newest} is the newest number, and {synced} was synced"
                ));
            }
            self.take_back(newest);
        }
        for block in &recovered.blocks {
            let first = block.first.expect("it was appended");
            if first > sequence && recovered.lost.is_none_or(|(lost, _)| first < lost) {
                self.count("blocks that a process has not applied");
                self.on_records(first, &block.widths);
            }
        }
        self.forget_queue();
        if let Some((lost, _)) = recovered.lost {
            self.count("terms that begin");
            self.sequence = lost;
            self.terms.push(lost);
            let draft = Draft::lost(&self.id_of(lost));
            self.enter_everywhere(Everywhere::new(draft, lost, self.now()));
        }
        self.synced = self.sequence;
        self.find_channels();
    }

    /// The log has lost all records behind a number.
    fn take_back(&mut self, newest: u64) {
        let is_lost = |sequence: u64| sequence > newest;
        let lost: Vec<(u64, usize)> = self.by_sequence.iter().copied().collect();
        for (sequence, number) in lost.into_iter().filter(|(at, _)| is_lost(*at)) {
            self.count("events that a log has lost");
            self.remove_event(sequence, number);
        }
        self.proposed().take_back(newest);
        if let Some(keys) = &mut self.keys {
            keys.take_back(newest);
        }
        self.everywhere.retain(|event| !is_lost(event.sequence));
        for topic in &mut self.topics {
            if topic.finish.is_some_and(is_lost) {
                topic.finish = None;
                (topic.finished_at, topic.over_at, topic.over_from_ms) = (None, None, None);
            }
            if topic.closed.is_some_and(is_lost) {
                (topic.closed, topic.closed_at) = (None, None);
            }
        }
        // A channel that was made after one that is there again was never made.
        let mut there = std::collections::BTreeSet::new();
        let now = self.now();
        for (number, topic) in self.topics.iter_mut().enumerate() {
            if there.contains(&topic.name) {
                topic.is_void = true;
                topic.closed_at = Some(now);
                topic.since = 0;
            } else if topic.is_there() {
                there.insert(topic.name.clone());
                self.current.insert(topic.name.clone(), number);
            }
        }
    }

    fn remove_event(&mut self, sequence: u64, number: usize) {
        self.by_sequence.remove(&(sequence, number));
        let event = &self.published[number];
        if let Some(numbers) = self.by_id.get_mut(&event.id) {
            numbers.retain(|other| *other != number);
        }
        let entries = &mut self.topics[event.topic].entries;
        entries.retain(|other| *other != number);
    }

    /// Finds the channels that the process has, under their names.
    fn find_channels(&mut self) {
        let now = self.now();
        for (name, mut number) in self.current.clone() {
            let found = self.manager.get(&name);
            let is_finished = found.as_ref().is_some_and(Channel::is_finished);
            if is_finished && !self.topics[number].is_finished() {
                // Its time was over, and the next look at it ends it again.
                number = self.bring_back(number);
            }
            let topic = &mut self.topics[number];
            if is_finished {
                topic.over_at = None;
            }
            match found {
                Some(channel) if topic.is_there() => {
                    topic.channel = channel;
                    let entries = topic.entries.iter().map(|entry| &self.published[*entry]);
                    let mut own = entries.skip_while(|event| event.is_for_all);
                    let first = own.next().map(|own| own.sequence);
                    topic.unsure_through = topic.unsure_through.max(first.unwrap_or(self.sequence));
                    if first.is_none() {
                        topic.begun_again_at = self.sequence;
                    }
                    if topic.channel.is_finished() != topic.is_finished() {
                        self.fail(format!("{name} is finished, or not, after a start"));
                    }
                }
                Some(_) if topic.closed.is_some() => {
                    self.fail(format!("{name} was closed, and is there again"));
                }
                None if topic.is_finished() && topic.is_there() => {
                    topic.over_at = Some(now);
                    if topic.over_from_ms.is_some_and(|from| now < from) {
                        self.fail(format!("{name} is finished, and not there after a start"));
                    }
                }
                None if topic.is_there() => self.forget_channel(number),
                _ => {}
            }
        }
    }

    /// The finished channel that had the name before another one, of which the log knows
    /// nothing. Returns the one that has the name.
    fn bring_back(&mut self, later: usize) -> usize {
        let name = self.topics[later].name.clone();
        let mut lives = self.topics[..later].iter().enumerate().rev();
        let former = lives.find(|(_, topic)| topic.name == name && !topic.is_void);
        let former = former.filter(|(_, topic)| topic.over_at.is_some());
        let Some((former, _)) = former else {
            return later;
        };
        self.forget_channel(later);
        self.topics[former].over_at = None;
        self.current.insert(name, former);
        former
    }

    /// A channel of which the log knows nothing ends with its process.
    fn forget_channel(&mut self, topic: usize) {
        let now = self.now();
        let state = &mut self.topics[topic];
        (state.closed_at, state.is_void, state.since) = (Some(now), true, 0);
        for number in std::mem::take(&mut state.entries) {
            let event = &self.published[number];
            if !event.is_for_all {
                let (name, id) = (&self.topics[topic].name, &event.id);
                let wrong = format!("{name} has {id}, and is not there after a start");
                return self.fail(wrong);
            }
            self.remove_event(event.sequence, number);
        }
    }
}

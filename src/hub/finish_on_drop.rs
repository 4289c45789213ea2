//! A guard that finishes a channel, so that the clients of a worker that panics do
//! not wait for ever.

use super::channel::Channel;
use super::published::PublishError;
use crate::event::Event;

/// Finishes a channel when it is dropped, as it is when a worker returns early or
/// panics; see [`Channel::finish_on_drop`].
///
/// ```
/// use pushwheel::{ChannelManager, Event};
///
/// let answer = ChannelManager::new().get_or_create("answer-17")?;
/// let guard = answer.finish_on_drop().last(Event::new("failed", ""));
/// let worker = std::thread::spawn(move || {
///     for token in ["It ", "works"] {
///         guard.channel().broadcast(Event::new("token", token))?;
///     }
///     guard.finish(Some(Event::new("done", "")))
/// });
/// worker.join().unwrap()?;
/// assert!(answer.is_finished());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it finishes the channel at once"]
pub struct FinishOnDrop {
    channel: Channel,
    last: Option<Event<'static>>,
    is_armed: bool,
}

impl FinishOnDrop {
    /// Sets the last event of a channel that the drop finishes. Default: none. An
    /// event that cannot be published is left out.
    pub fn last(mut self, event: Event<'static>) -> FinishOnDrop {
        self.last = Some(event);
        self
    }

    /// Returns the channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Finishes the channel now, with this last event; see [`Channel::finish`].
    ///
    /// # Errors
    /// As [`Channel::finish`]. Then the channel is finished as by a drop.
    pub fn finish(mut self, last: Option<Event<'_>>) -> Result<usize, PublishError> {
        let finished = self.channel.finish(last);
        self.is_armed = finished.is_err();
        finished
    }

    /// Returns the channel, and leaves it open.
    #[must_use]
    pub fn disarm(mut self) -> Channel {
        self.is_armed = false;
        self.channel.clone()
    }
}

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        if self.channel.finish(self.last.take()).is_err() {
            // Closed or finished already, or the event cannot be published.
            match self.channel.finish(None) {
                Ok(_) | Err(PublishError::Closed | PublishError::Finished) => {}
                Err(error) => {
                    let name = self.channel.name();
                    ::log::error!("the channel {name} was not finished with its worker ({error})");
                }
            }
        }
    }
}

impl Channel {
    /// Returns a guard that finishes the channel when it is dropped, for workers
    /// that publish to it: if one panics, its clients are not left waiting.
    pub fn finish_on_drop(&self) -> FinishOnDrop {
        FinishOnDrop {
            channel: self.clone(),
            last: None,
            is_armed: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelManager, ChannelOptions, History};

    fn channel() -> Channel {
        let options = || ChannelOptions::new().history(History::events(5));
        let made = ChannelManager::new().get_or_create_with("a", options);
        made.unwrap()
    }

    #[test]
    fn a_worker_that_panics_finishes_its_channel() {
        for (last, events) in [("n", 1), ("two\nlines", 0)] {
            let channel = channel();
            let guard = channel.finish_on_drop().last(Event::new(last, ""));
            assert!(!channel.is_finished());
            let worker = std::thread::spawn(move || panic!("with {guard:?}"));
            worker.join().unwrap_err();
            assert!(channel.is_finished());
            assert_eq!(channel.stats().unwrap().published, events);
        }
    }

    #[test]
    fn a_guard_that_is_disarmed_or_has_finished_does_nothing_more() {
        let open = channel();
        assert_eq!(open.finish_on_drop().disarm().name(), "a");
        assert!(!open.is_finished());
        let finished = channel();
        let guard = finished.finish_on_drop().last(Event::new("failed", ""));
        guard.finish(Some(Event::new("done", ""))).unwrap();
        assert_eq!(finished.stats().unwrap().published, 1);
        let refused = channel();
        let guard = refused.finish_on_drop();
        guard.finish(Some(Event::new("a\nb", ""))).unwrap_err();
        assert!(refused.is_finished());
    }
}

//! Other options for channels that are there already.
//!
//! A channel's options stand in its state, and reactors have a copy of what
//! their clients need: the hub tells them when it has changed. Two things stay
//! as the channel was made, because entries and streams that are there depend
//! on them: whether events are compressed, and whether they conflate; and the
//! index, which every member is in.

use std::sync::{Arc, PoisonError};

use super::Hub;
use super::bounds::Maker;
use super::channel::Channel;
use super::key::ChannelKey;
use super::names::ChannelError;
use super::options::{ChannelOptions, LagPolicy, OptionsByName};

impl Hub {
    /// Opens a channel with what its name says, as
    /// [`ChannelManager::get_or_create`](super::manager::ChannelManager::get_or_create)
    /// does.
    ///
    /// Whoever changes what names say finds the channels that there are. One that
    /// is being made is not among them: so its maker looks again when it is.
    pub(crate) fn open_by_name(
        self: &Arc<Self>,
        name: &str,
        maker: Maker,
    ) -> Result<Channel, ChannelError> {
        let by_name = self.options_by_name();
        let channel = self.open(name, Arc::new(by_name.of(name)), maker)?;
        self.keep_current(name, channel.key(), by_name);
        Ok(channel)
    }

    /// Gives a channel, which has what `by_name` says, what names say now, until
    /// nothing has changed meanwhile. So of two that change it at once, the
    /// later one to write looks whether what it wrote is the newest.
    fn keep_current(&self, name: &str, key: ChannelKey, mut by_name: OptionsByName) {
        loop {
            let current = self.options_by_name();
            if current.is_same(&by_name) {
                return;
            }
            self.set_options(key, current.of(name));
            by_name = current;
        }
    }

    /// What names say, out of the lock, for the user's code is in it.
    fn options_by_name(&self) -> OptionsByName {
        let by_name = self.options_by_name.read();
        by_name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes that, for the channels that there are as well.
    pub(crate) fn set_options_by_name(&self, by_name: &OptionsByName) {
        let current = self.options_by_name.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, by_name.clone());
        drop(current);
        // The user's code is in it, too.
        drop(before);
        let mut named = Vec::new();
        self.for_each_channel(|key, channel| {
            named.extend(channel.current_name().map(|name| (name.clone(), key)));
        });
        for (name, key) in named {
            self.set_options(key, by_name.of(&name));
            self.keep_current(&name, key, by_name.clone());
        }
    }

    /// Gives a channel other options; nothing if it is gone.
    pub(crate) fn set_options(&self, key: ChannelKey, options: ChannelOptions) {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let Some(channel) = state.get_mut(key) else {
            return;
        };
        let before = channel.options.clone();
        channel.options = Arc::new(options.fitting(&before));
        if before.publish_rate != channel.options.publish_rate {
            channel.bucket = None;
        }
        let wake = state.mark_changed(key);
        drop(state);
        self.wake(wake);
        self.finish_trims(vec![key], now_ms);
    }

    /// What holds for a stream of all these channels, as of now.
    pub(crate) fn options_of_all(&self, channels: &[ChannelKey]) -> Arc<ChannelOptions> {
        let state = self.lock();
        let channels = channels.iter().filter_map(|key| state.get(*key));
        ChannelOptions::of_all(channels.map(|channel| &channel.options))
    }
}

impl ChannelOptions {
    /// These options, for a channel that was made with `before`.
    fn fitting(mut self, before: &ChannelOptions) -> ChannelOptions {
        self.compress_from = before.compress_from;
        self.indexed.clone_from(&before.indexed);
        if self.conflates() != before.conflates() {
            self.lag_policy = match before.lag_policy {
                LagPolicy::Conflate => LagPolicy::Conflate,
                // What it says of those who are left behind.
                _ => LagPolicy::Skip,
            };
        }
        self
    }
}

//! Other options for existing channels.
//!
//! A channel's options are in its state, and reactors have a copy of those that their
//! clients need: the hub puts the channel on their lists when the options change. Three
//! options stay as the channel was made, because its entries and streams depend on
//! them: compression, conflation and the index.

use std::sync::{Arc, PoisonError};

use super::Hub;
use super::bounds::Maker;
use super::channel::Channel;
use super::key::ChannelKey;
use super::names::ChannelError;
use super::options::{ChannelOptions, LagPolicy, OptionsByName};

impl Hub {
    /// Opens a channel with the options of its name, as
    /// [`ChannelManager::get_or_create`](super::manager::ChannelManager::get_or_create)
    /// does.
    ///
    /// A thread that changes the options of names changes those of existing channels.
    /// A channel that is being made is not among them, so the thread that makes it
    /// compares the options again afterwards.
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

    /// Sets the current options of a channel's name, if they are not those of `by_name`,
    /// until they have not changed meanwhile. So of two threads that change them at
    /// once, the last to write finds that its options are the current ones.
    pub(super) fn keep_current(&self, name: &str, key: ChannelKey, mut by_name: OptionsByName) {
        loop {
            let current = self.options_by_name();
            if current.is_same(&by_name) {
                return;
            }
            self.set_options(key, current.of(name));
            by_name = current;
        }
    }

    /// Returns the options of a name.
    pub(super) fn options_of_name(&self, name: &str) -> ChannelOptions {
        self.options_by_name().of(name)
    }

    /// Returns the options of names. They are used without the lock, because they are
    /// the user's code.
    pub(super) fn options_by_name(&self) -> OptionsByName {
        let by_name = self.options_by_name.read();
        by_name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the options of names, for existing channels too.
    pub(crate) fn set_options_by_name(&self, by_name: &OptionsByName) {
        let current = self.options_by_name.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, by_name.clone());
        drop(current);
        // It may run the user's code.
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

    /// Sets the options of a channel, if it is there.
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
        self.finish_trims(key, now_ms);
    }

    /// Returns the options of a stream of all these channels.
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
                // The part of it that is about clients that lag.
                _ => LagPolicy::Skip,
            };
        }
        self
    }
}

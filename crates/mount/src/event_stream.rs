//! A channel's events in the program itself, as a stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use pushwheel::{Channel, Events, LiveEvent, ReadError, Start};

/// The events of a channel in the program itself, with gaps as items: as
/// [`Channel::events`], without blocking.
#[derive(Debug)]
#[must_use = "it is a stream, which does nothing until it is polled"]
pub struct EventStream(Events);

impl EventStream {
    /// Joins the channel. What is published when this has returned is an item.
    ///
    /// # Errors
    /// When the thread that all such streams of a manager share cannot be started.
    pub async fn open(channel: &Channel, start: Start) -> io::Result<EventStream> {
        let mut events = Events::new(channel, start)?;
        poll_fn(|context| events.poll_open(context)).await;
        Ok(EventStream(events))
    }
}

impl Stream for EventStream {
    type Item = Result<LiveEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_event(context)
    }
}

//! A channel's events in the program itself: a client without a connection.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::mounted::{Mounted, MountedBody, block_on};
use super::{Answering, Mount, MountedRequest};
use crate::disconnect_reason::DisconnectReason;
use crate::event::Event;
use crate::exchange::Subscription;
use crate::frame;
use crate::hub::Start;
use crate::hub::channel::Channel;
use crate::hub::gap::{GAP_NAME, Gap, GapReason};
use crate::hub::id::EventId;
use crate::hub::manager::ChannelManager;
use crate::hub::reader::ReadError;

/// An event of a stream in the program; see [`Channel::events`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveEvent {
    /// The id of the event, as clients see it.
    pub id: EventId,
    /// The event as it goes over the wire: line ends in its data are LF, and it has
    /// neither a key nor an id of its own.
    pub event: Event<'static>,
}

impl Channel {
    /// Joins the channel as a client of the program's own, and returns an iterator over its
    /// events, from `start` on, that waits for the next one. It ends when the channel is
    /// finished and all of its events were returned.
    ///
    /// It is a client as a browser is: it has a random id, is counted and listed, and
    /// receives the events that are for it. But it is never given up: if it is too slow for
    /// the channel, or rests for too long, it continues where it was. Missing events are an
    /// error in the place where they are missing, and the iterator goes on behind them.
    ///
    /// All such iterators of a manager share one thread, which they read from; it ends with
    /// the last of them.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Event, Start};
    ///
    /// let news = ChannelManager::new().get_or_create("news")?;
    /// let events = news.events(Start::Live)?;
    /// news.broadcast(Event::new("headline", "It works"))?;
    /// news.finish(None)?;
    /// for event in events {
    ///     let event = event?.event;
    ///     assert_eq!((event.name(), event.data()), (Some("headline"), "It works"));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the thread cannot be started.
    ///
    /// # Panics
    /// In a handler or a callback, whose thread would wait for itself.
    pub fn events(&self, start: Start) -> io::Result<Events> {
        let mut events = Events::new(self, start)?;
        block_on(|context| events.poll_open(context));
        Ok(events)
    }
}

/// The events of a channel in the program itself: see [`Channel::events`]. A blocking
/// iterator; [`poll_event`](Self::poll_event) does not block.
#[must_use = "it is an iterator, which does nothing until it is used"]
pub struct Events {
    channel: Channel,
    mount: Mount,
    stream: Stream,
    ending: Arc<Mutex<Ending>>,
    /// Bytes of an event whose end has not come.
    partial: Vec<u8>,
    events: VecDeque<Result<LiveEvent, ReadError>>,
    /// The newest id that was read.
    position: Option<String>,
}

enum Stream {
    Opening(Answering),
    Open(MountedBody),
    Over,
}

/// How the client of a stream has ended.
#[derive(Default)]
struct Ending {
    reason: Option<DisconnectReason>,
    /// The reader that waits for it.
    waker: Option<Waker>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// As [`Channel::events`], but does not wait until it has joined: events that are
    /// published before the first [`poll_event`](Self::poll_event) or
    /// [`poll_open`](Self::poll_open) is ready may come before its start.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(channel: &Channel, start: Start) -> io::Result<Events> {
        let mut events = Events {
            channel: channel.clone(),
            mount: mount_of(channel)?,
            stream: Stream::Over,
            ending: Arc::default(),
            partial: Vec::new(),
            events: VecDeque::new(),
            position: None,
        };
        events.join(start);
        Ok(events)
    }

    fn join(&mut self, start: Start) {
        self.ending = Arc::default();
        let ending = self.ending.clone();
        let subscription = Subscription::new(&self.channel).start(start);
        let subscription = subscription.on_disconnect(move |_, reason| {
            let mut ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
            ending.reason = Some(reason);
            if let Some(waker) = ending.waker.take() {
                waker.wake();
            }
        });
        let request = MountedRequest::get("/", ([127, 0, 0, 1], 0).into());
        self.stream = Stream::Opening(self.mount.respond(&request, subscription));
    }

    /// Is ready when the client has joined the channel, or cannot.
    pub fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Stream::Opening(answering) = &mut self.stream {
            let Poll::Ready(answer) = std::pin::Pin::new(answering).poll(context) else {
                return Poll::Pending;
            };
            self.stream = Stream::Over;
            match answer {
                Ok(Mounted {
                    status: 200,
                    headers,
                    body,
                }) => {
                    let mut headers = headers.into_iter();
                    let id = headers.find(|(name, _)| name == "Last-Event-ID");
                    self.position = id.map(|(_, id)| id).or(self.position.take());
                    self.stream = Stream::Open(body);
                }
                // All of a finished channel was read.
                Ok(Mounted { status: 204, .. }) => {}
                Ok(_) if !self.channel.is_closed() => {
                    self.events.push_back(Err(ReadError::Full));
                }
                Ok(_) | Err(_) => self.events.push_back(Err(ReadError::Closed)),
            }
        }
        Poll::Ready(())
    }

    /// Returns the next event, or `None` at the end.
    pub fn poll_event(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<LiveEvent, ReadError>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.poll_open(context).is_pending() {
                return Poll::Pending;
            }
            let Stream::Open(body) = &mut self.stream else {
                match self.events.is_empty() {
                    true => return Poll::Ready(None),
                    false => continue,
                }
            };
            match body.poll_bytes(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(bytes)) => self.read(&bytes),
                Poll::Ready(None) if self.poll_end(context).is_pending() => return Poll::Pending,
                Poll::Ready(None) => {}
            }
        }
    }

    /// The stream has ended: finds out why, and comes back if the client was too slow.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reason) = ending.reason else {
            ending.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(ending);
        self.stream = Stream::Over;
        self.partial.clear();
        match reason {
            DisconnectReason::Finished => {}
            DisconnectReason::Lagged | DisconnectReason::Stalled => {
                let start = self.position.clone().map_or(Start::Live, Start::After);
                self.join(start);
            }
            _ => self.events.push_back(Err(ReadError::Closed)),
        }
        Poll::Ready(())
    }

    /// Reads the next bytes of the stream.
    fn read(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let mut read = 0;
        while let Some(length) = memchr::memmem::find(&self.partial[read..], b"\n\n") {
            let block = &self.partial[read..read + length];
            read += length + 2;
            let block = str::from_utf8(block).expect("a stream is UTF-8");
            let id = block.split('\n').find_map(|line| line.strip_prefix("id: "));
            if let Some(id) = id {
                self.position = Some(id.to_owned());
            }
            let has_data = block.split('\n').any(|line| line.starts_with("data:"));
            if let Some(id) = id.filter(|_| has_data) {
                let event = frame::decode(block);
                self.events.push_back(match event.name() == Some(GAP_NAME) {
                    true => Err(ReadError::Gap(gap(event.data(), id))),
                    false => Ok(LiveEvent {
                        id: EventId::own(id.into()),
                        event,
                    }),
                });
            }
        }
        self.partial.drain(..read);
    }
}

/// Returns the mount of all such iterators of the channel's manager.
fn mount_of(channel: &Channel) -> io::Result<Mount> {
    let hub = channel.hub();
    let mut readers = hub.readers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = readers.upgrade()
        && let Ok(shared) = shared.downcast()
    {
        return Ok(Mount(shared));
    }
    let mount = Mount::new(&ChannelManager::of(hub))?;
    let shared: Arc<dyn Any + Send + Sync> = mount.0.clone();
    *readers = Arc::downgrade(&shared);
    Ok(mount)
}

/// Returns the gap of an event `pushwheel.gap`.
fn gap(data: &str, id: &str) -> Gap {
    let json: Value = serde_json::from_str(data).expect("the engine's JSON is valid");
    let text = |field: &str| json[field].as_str().map(str::to_owned);
    let event_id = |field: &str| text(field).map(|id| EventId::own(id.into()));
    let reason = text("reason").and_then(|reason| GapReason::from_name(&reason));
    Gap {
        requested: text("requested"),
        oldest: event_id("oldest"),
        newest: event_id("newest").unwrap_or_else(|| EventId::own(id.into())),
        reason: reason.unwrap_or(GapReason::Unknown),
    }
}

impl Iterator for Events {
    type Item = Result<LiveEvent, ReadError>;

    /// Waits for the next event.
    ///
    /// # Panics
    /// In a handler or a callback, whose thread would wait for itself.
    fn next(&mut self) -> Option<Self::Item> {
        block_on(|context| self.poll_event(context))
    }
}

impl FusedIterator for Events {}

//! The least that a body in hyper can do: the newest bytes behind one lock, without ids,
//! history, heartbeats, slow clients or ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::extract::Path;
use axum::http::{Response, header};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body::Frame;

use super::data;

#[derive(Default)]
struct Newest {
    number: u64,
    bytes: Bytes,
    waiting: Vec<Waker>,
}

struct Body {
    newest: Arc<Mutex<Newest>>,
    seen: u64,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let newest = self.newest.clone();
        let mut newest = newest.lock().unwrap();
        if self.seen == newest.number {
            newest.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        self.seen = newest.number;
        Poll::Ready(Some(Ok(Frame::data(newest.bytes.clone()))))
    }
}

pub(super) fn router() -> Router {
    let newest: Arc<Mutex<Newest>> = Arc::default();
    let stream = newest.clone();
    let events = async move || {
        let seen = stream.lock().unwrap().number;
        let newest = stream.clone();
        let body = axum::body::Body::new(Body { newest, seen });
        let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
        response.body(body).unwrap()
    };
    let publish = async move |Path(count): Path<usize>| {
        let event = format!("id: abcdef-1000\nevent: tick\ndata: {}\n\n", data());
        let waiting = {
            let mut newest = newest.lock().unwrap();
            newest.number += 1;
            newest.bytes = event.repeat(count).into();
            std::mem::take(&mut newest.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    };
    let router = Router::new().route("/events", get(events));
    router.route("/publish/{count}", post(publish))
}

//! What a client makes of the bytes that it reads.

use super::{Client, Expected, HELLO, LARGE_BYTES, Role};
use crate::oracle::{Oracle, REAUTH, Want};
use crate::sse::Parser;

impl Client {
    pub(super) fn take_bytes(&mut self, bytes: &[u8], oracle: &mut Oracle) {
        for byte in bytes {
            if let Some(parser) = &mut self.reader.stream {
                let events = parser.push(std::slice::from_ref(byte));
                let id = parser.last_event_id();
                let Some(stream) = self.stream else {
                    continue;
                };
                if events.is_empty() && id != self.last_event_id && !id.is_empty() {
                    if self.asks_for_id && id == self.opening_id {
                        oracle.on_id(stream, id);
                    } else if self.asks_for_positions && !oracle.awaits_id(stream) {
                        oracle.on_position(stream, id);
                    } else {
                        oracle.on_final_id(stream, id);
                    }
                }
                let is_moved = !id.is_empty() && id != self.last_event_id;
                if is_moved && events.iter().any(|event| event.name == REAUTH) {
                    let what = format!("stream {stream} ends, and its id is moved to {id}");
                    oracle.failures.push(what);
                }
                if !id.is_empty() {
                    id.clone_into(&mut self.last_event_id);
                }
                for event in events {
                    oracle.on_event(stream, &event);
                }
            } else if let Some((page, _)) = &mut self.reader.page {
                page.push(*byte);
            } else if self.reader.body_left > 0 {
                self.reader.body.push(*byte);
                self.reader.body_left -= 1;
                if self.reader.body_left == 0 {
                    self.end_response(oracle);
                }
            } else if self.reader.status != 408 {
                // A request whose method came too late is answered with a body.
                self.reader.head.push(*byte);
                if self.reader.head.ends_with(b"\r\n\r\n") {
                    self.end_head(oracle);
                }
            }
        }
    }

    fn end_head(&mut self, oracle: &mut Oracle) {
        let head = String::from_utf8(std::mem::take(&mut self.reader.head));
        let head = head.unwrap_or_default();
        let opening_id = head
            .lines()
            .find_map(|line| line.strip_prefix("Last-Event-ID: "));
        let opening_id = opening_id.unwrap_or_default().to_owned();
        let head = head.to_ascii_lowercase();
        let status = head
            .strip_prefix("http/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        self.reader.status = status.unwrap_or(0);
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if head.contains("content-type: text/event-stream\r\n") {
            let expected = self.expected.pop_front();
            let is_right = matches!(
                expected,
                Some(Expected::Stream | Expected::Head | Expected::Anything)
            );
            if self.reader.status != 200 || !is_right {
                oracle
                    .failures
                    .push(format!("a stream came for {expected:?}: {head}"));
            }
            // A browser keeps its id over connections; this parser begins
            // with none, and the caller keeps it.
            self.reader.stream = Some(Parser::new());
            self.last_event_id = match self.stream.map(|s| &oracle.streams[s].want) {
                Some(Want::After(id)) => id.clone(),
                _ => String::new(),
            };
            if let Some(stream) = self.stream
                && !opening_id.is_empty()
                && self.last_event_id.is_empty()
            {
                oracle.on_id(stream, &opening_id);
            }
            self.opening_id = opening_id;
            return;
        }
        if self.asks_for_pages
            && self.reader.status == 200
            && self.expected.front() == Some(&Expected::Stream)
            && head.contains("content-type: application/json\r\n")
            && length.is_none()
        {
            // It waits, and the page ends with the connection.
            self.expected.pop_front();
            self.reader.page = Some((Vec::new(), self.byte_at));
            return;
        }
        let is_of_head = self.expected.front() == Some(&Expected::Head);
        self.reader.body_left = match is_of_head {
            true => 0,
            false => length.unwrap_or(0),
        };
        if self.reader.body_left == 0 {
            self.end_response(oracle);
        }
    }

    /// Whether a request for a stream may get this response (docs/http.md, Codes).
    fn is_right_refusal(&self, status: u16, body: &[u8], oracle: &Oracle) -> bool {
        let names = match &self.role {
            Role::Subscriber { names, .. } => &names[..],
            Role::Sink | Role::Hostile => &[],
        };
        let since = self.connected_at;
        let mut all = names.iter();
        let error: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match (status, error["error"]["code"].as_str().unwrap_or_default()) {
            (204, _) => !names.is_empty() && all.all(|name| oracle.was_finished(name, since)),
            (503, "server_full" | "address_full") => oracle.is_limited,
            (503, "too_many_in_flight") => oracle.is_limited && self.is_deferred(),
            (503, "channel_full") => all.any(|name| oracle.was_full(name, since)),
            // It was closed between the request and the deferred response.
            (503, "channel_closed") => {
                self.is_deferred() && all.any(|name| oracle.was_closed(name, since))
            }
            // The responder was dropped.
            (500, "no_answer") => self.is_deferred(),
            _ => false,
        }
    }

    /// Reads a page, if it has come whole: a stream that is ended may lack it.
    pub(super) fn take_page(&mut self, body: &[u8], oracle: &mut Oracle) {
        let page = serde_json::from_slice::<serde_json::Value>(body);
        if let (Ok(page), Some(stream)) = (page, self.stream) {
            if let Some(newest) = page["newest"].as_str() {
                newest.clone_into(&mut self.last_event_id);
            }
            oracle.on_page(stream, &page);
        }
    }

    fn end_response(&mut self, oracle: &mut Oracle) {
        let body = std::mem::take(&mut self.reader.body);
        let status = self.reader.status;
        let expected = self.expected.pop_front();
        // Of a clock that jumps, requests that were under way are late.
        let is_late = status == 408 && self.jumped_at > self.connected_at;
        let is_right = match expected {
            Some(_) if is_late => true,
            Some(Expected::Hello) => status == 200 && body == HELLO.as_bytes(),
            Some(Expected::Large) => status == 200 && body.len() == LARGE_BYTES,
            Some(Expected::Stream) if self.asks_for_pages && status == 200 => {
                self.take_page(&body, oracle);
                self.reader.is_page_read = true;
                true
            }
            Some(Expected::Stream) => self.is_right_refusal(status, &body, oracle),
            Some(Expected::Head | Expected::Anything) => {
                self.expected.push_back(Expected::Anything);
                (200..506).contains(&status)
            }
            None => status == 408,
        };
        if !is_right {
            let body = String::from_utf8_lossy(&body).into_owned();
            oracle
                .failures
                .push(format!("{expected:?} was answered {status}: {body}"));
        }
        if self.stream.is_some() {
            oracle.count(match status {
                204 => "answers 204",
                408 => "answers 408",
                500 => "answers 500",
                503 => "answers 503",
                _ => "answers",
            });
        }
    }
}

//! Publishing to the examined stream, so that the expected events and their times are
//! known.

use ureq::Agent;
use uuid::Uuid;

use super::http::{self, Credential};
use super::message::Message;

/// Publishes to one URL.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) agent: Agent,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    /// Send only the data, as text, for servers with another JSON format.
    pub(super) is_text: bool,
    /// A part of all published data, which no other publisher uses.
    token: String,
}

/// The error of a publish.
#[derive(Debug)]
pub(super) struct Rejected {
    /// The status of the response, if there was one.
    pub(super) status: Option<u16>,
    pub(super) why: String,
}

impl Publisher {
    pub(super) fn new(
        agent: Agent,
        url: String,
        headers: Vec<(String, String)>,
        is_text: bool,
    ) -> Publisher {
        let token = Uuid::new_v4().simple().to_string();
        Publisher {
            agent,
            url,
            headers,
            is_text,
            token,
        }
    }

    /// Returns unique data for a purpose.
    pub(super) fn mark(&self, purpose: &str) -> String {
        format!("pushwheel-check {purpose} {}.", self.token)
    }

    pub(super) fn publish(&self, data: &str) -> Result<(), Rejected> {
        self.send(&Message {
            data,
            ..Message::default()
        })
    }

    /// Publishes a message, or only its data to a server that accepts text.
    pub(super) fn send(&self, message: &Message<'_>) -> Result<(), Rejected> {
        let (media_type, body) = match self.is_text {
            true => (
                "text/plain; charset=utf-8",
                message.data.as_bytes().to_vec(),
            ),
            false => ("application/json", message.to_json()),
        };
        let mut request = self.agent.post(&self.url);
        let own = self.headers.iter().map(|(name, value)| (&**name, &**value));
        let has_type = own
            .clone()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let media_type = (!has_type).then_some(("Content-Type", media_type));
        for (name, value) in own.chain(media_type) {
            request = request.header(name, value);
        }
        let failed = |error: ureq::Error| Rejected {
            status: None,
            why: format!("cannot publish to {} {}", self.url, http::reason(&error)),
        };
        let mut response = request.send(&body[..]).map_err(failed)?;
        let status = response.status().as_u16();
        let body = http::read_response(&mut response).map_err(failed)?;
        match status {
            200..=299 => Ok(()),
            _ => Err(Rejected {
                status: Some(status),
                why: http::rejection(status, &body, Credential::PublishKey),
            }),
        }
    }
}

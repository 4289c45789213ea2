//! Publishing to the stream that is looked at, so that it can be known what
//! should come, and when.

use ureq::Agent;
use uuid::Uuid;

use super::http;
use super::message::Message;

/// Publishes to one URL.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) agent: Agent,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    /// The data alone, as text, for servers whose JSON is another.
    pub(super) is_text: bool,
    /// In all that is published, so that it is not mistaken for another's.
    token: String,
}

/// Why something was not published.
#[derive(Debug)]
pub(super) struct Refused {
    /// The answer's, if there was one.
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

    /// Data that nobody else publishes, for this purpose.
    pub(super) fn mark(&self, purpose: &str) -> String {
        format!("pushwheel-check {purpose} {}.", self.token)
    }

    pub(super) fn publish(&self, data: &str) -> Result<(), Refused> {
        self.send(&Message {
            data,
            ..Message::default()
        })
    }

    /// Publishes; of a message for a server that takes text alone, the data.
    pub(super) fn send(&self, message: &Message<'_>) -> Result<(), Refused> {
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
        let failed = |error: ureq::Error| Refused {
            status: None,
            why: format!("cannot publish to {} {}", self.url, http::reason(&error)),
        };
        let mut answer = request.send(&body[..]).map_err(failed)?;
        let status = answer.status().as_u16();
        let body = http::read_answer(&mut answer).map_err(failed)?;
        match status {
            200..=299 => Ok(()),
            _ => Err(Refused {
                status: Some(status),
                why: http::refusal(status, &body),
            }),
        }
    }
}

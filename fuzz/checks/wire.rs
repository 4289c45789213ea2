//! The requests of a connection that sends some bytes in pieces.

use pushwheel::internals::http::{Limits, Message, Reader, Refusal, Step};

/// The requests and the error of a connection, and the state of its reader.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub messages: Vec<Message>,
    pub refusal: Option<Refusal>,
    pub is_idle: bool,
    pub is_in_body: bool,
}

pub fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut reader = Reader::new();
    let mut messages = Vec::new();
    let mut refusal = None;
    'pieces: for mut piece in pieces {
        while !piece.is_empty() {
            match reader.push(piece, limits) {
                Ok((consumed, Step::Request(message))) => {
                    assert!(consumed > 0 && reader.is_idle());
                    messages.push(message);
                    piece = &piece[consumed..];
                }
                Ok((consumed, Step::NeedMore)) => {
                    assert_eq!(consumed, piece.len());
                    break;
                }
                Ok((consumed, Step::SendContinue)) => {
                    assert!(consumed == piece.len() && reader.is_in_body());
                    break;
                }
                Err(error) => {
                    refusal = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    Outcome {
        messages,
        refusal,
        is_idle: reader.is_idle(),
        is_in_body: reader.is_in_body(),
    }
}

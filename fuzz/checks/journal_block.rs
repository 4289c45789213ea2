//! A block of the journal is refused or says the same when it is written again, and each of
//! its events is one event, whatever bytes it contains.
//!
//! The input is the block without its checksum.

use pushwheel::internals::journal::{read, with_checksum};

use super::frame::sse::Parser;

pub fn check(input: &[u8]) {
    // As it comes from a disk: it is refused by its checksum.
    let _ = read(input);
    let Ok(block) = read(&with_checksum(input)) else {
        return;
    };
    let again = read(&block.again).expect("a block is written as it is read");
    assert_eq!(again, block);
    for frame in &block.frames {
        // Between two others, so that a leak shows there.
        let stream = [b"data: before\n\n", &**frame, b"data: after\n\n"].concat();
        let mut parser = Parser::new();
        let events = parser.push(&stream);
        assert_eq!(events.len(), 3, "{}", frame.escape_ascii());
        assert_eq!(events[0].data, "before");
        assert_eq!(events[2].data, "after");
        assert_eq!(parser.comments(), 0);
    }
}

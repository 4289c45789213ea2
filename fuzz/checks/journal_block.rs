//! A block of the journal is refused or says the same when it is written again, and each of
//! its events is one event, whatever bytes it contains. The channels that it makes are whole:
//! they can be published to, saved and restored.
//!
//! The input is the block without its checksum.

use pushwheel::internals::journal::{applied, read, with_checksum};
use pushwheel::{ChannelManager, Event};

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
    let manager = applied(&block.again).expect("it was read");
    let _ = manager.broadcast_all(Event::message("more").with_key("a"));
    let mut state = Vec::new();
    manager.save(&mut state).expect("a vector has room");
    let restored = ChannelManager::builder().restore(&*state);
    let restored = restored.expect("what was saved is whole");
    assert_eq!(restored.names(), manager.names());
}

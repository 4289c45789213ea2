//! The ring of this machine's kernel, with real sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use pushwheel::{BatchSender, SendOutcome};
use pushwheel_uring::UringSender;

/// The ring, unless the kernel or a filter does not allow it, which a container may.
fn sender() -> Option<UringSender> {
    let sender = UringSender::new();
    if let Err(error) = &sender {
        let is_refused = matches!(error.raw_os_error(), Some(1 | 12 | 13 | 38));
        assert!(is_refused, "{error}");
        eprintln!("no ring here: {error}");
    }
    sender.ok()
}

#[test]
fn each_socket_takes_what_it_has_room_for_and_none_waits() {
    let Some(mut sender) = sender() else { return };
    let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
    let mut pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (a, Some(b))).collect();
    for (index, (socket, peer)) in pairs.iter_mut().enumerate() {
        socket.set_nonblocking(index % 2 == 0).unwrap();
        match index % 7 {
            // Gone.
            3 => *peer = None,
            // Full.
            5 => {
                socket.set_nonblocking(true).unwrap();
                let filling = [b'-'; 1000];
                while std::io::Write::write(socket, &filling).is_ok() {}
                socket.set_nonblocking(false).unwrap();
            }
            _ => {}
        }
    }
    let bytes = b"data: to many\n\n";
    let sockets: Vec<_> = pairs.iter().map(|(a, _)| a.as_raw_fd()).collect();
    for _ in 0..3 {
        let mut outcomes = vec![SendOutcome::Unsent; sockets.len()];
        sender
            .send_to_all(&sockets, bytes, false, &mut outcomes)
            .unwrap();
        for (index, (outcome, (_, peer))) in outcomes.iter().zip(&mut pairs).enumerate() {
            let expected = match index % 7 {
                3 => SendOutcome::Failed,
                5 => SendOutcome::WouldBlock,
                _ => SendOutcome::Sent(bytes.len()),
            };
            assert_eq!(*outcome, expected, "{index}");
            if let SendOutcome::Sent(count) = outcome {
                let mut received = vec![0; *count];
                peer.as_mut().unwrap().read_exact(&mut received).unwrap();
                assert_eq!(received, bytes);
            }
        }
    }
    let mut outcomes = [SendOutcome::Unsent];
    sender
        .send_to_all(&[-1], bytes, false, &mut outcomes)
        .unwrap();
    assert_eq!(outcomes, [SendOutcome::Failed], "no such descriptor");
}

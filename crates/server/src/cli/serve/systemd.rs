//! systemd: socket activation, and notifications of the server's state. Without systemd,
//! none of this does anything.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use pushwheel::{EngineHandle, Listener};
use sd_notify::NotifyState;

use super::listening::Endpoint;
use crate::cli::Failure;

/// Returns the sockets that systemd has opened for this process (`LISTEN_FDS`), and where
/// they listen.
pub(super) fn listeners() -> Result<(Vec<Listener>, Vec<Endpoint>), Failure> {
    let mut given = ListenFd::from_env();
    let all = (0..given.len()).map(|index| {
        // A socket of the other kind stays in its place.
        if let Ok(Some(tcp)) = given.take_tcp_listener(index) {
            let endpoint = Endpoint::at(tcp.local_addr()?);
            return Ok((Listener::from(tcp), endpoint));
        }
        let unix = given.take_unix_listener(index)?;
        let unix = unix.ok_or(io::ErrorKind::NotFound)?;
        let address = unix.local_addr()?;
        let path = address.as_pathname().unwrap_or(Path::new(""));
        let endpoint = Endpoint::Unix(path.to_owned());
        Ok((Listener::from(unix), endpoint))
    });
    let all = all.collect::<io::Result<_>>();
    all.map_err(|error| format!("cannot use a socket of systemd ({error}). Use ListenStream= only"))
}

pub(super) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Reports the start of a reload; [`notify_ready`] reports its end.
pub(super) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("cannot notify systemd of the reload ({error})"),
    }
}

/// Serves the watchdog of systemd (`WatchdogSec=`), if it is on. Checks twice per period
/// that each thread of the engine responds, and notifies systemd only then.
pub(super) fn watch(engine: EngineHandle) -> Result<(), Failure> {
    let Some(time) = sd_notify::watchdog_enabled() else {
        return Ok(());
    };
    let pause = (time / 2).max(Duration::from_millis(1));
    let watch = move || {
        loop {
            if engine.responds_within(pause / 2) {
                notify(&[NotifyState::Watchdog]);
            } else {
                log::error!(
                    "the engine did not respond within {} ms",
                    (pause / 2).as_millis()
                );
            }
            thread::park_timeout(pause / 2);
        }
    };
    let thread = thread::Builder::new().name("pushwheel-watchdog".into());
    let spawned = thread.spawn(watch).map(drop);
    spawned.map_err(|error| format!("cannot start the thread of the watchdog ({error})"))
}

fn notify(state: &[NotifyState<'_>]) {
    let lines = state.iter().map(|line| format!("{line}\n"));
    if let Err(error) = send(&lines.collect::<String>()) {
        log::warn!("cannot notify systemd of the server's state ({error})");
    }
}

/// Sends a message as [`sd_notify::notify`] does, but never blocks: a server reloads and
/// ends also if its service manager hangs.
fn send(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(message.as_bytes(), path).map(drop)
}

//! What systemd and the server tell each other: sockets that systemd has opened,
//! and how the server is doing. Without systemd there is nothing to tell.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use pushwheel::EngineHandle;
use sd_notify::NotifyState;

use crate::cli::Failure;

/// The socket that systemd has opened for this process, if it has
/// (`LISTEN_FDS`).
pub(super) fn listener() -> Result<Option<TcpListener>, Failure> {
    let mut given = ListenFd::from_env();
    match given.len() {
        0 => Ok(None),
        1 => given.take_tcp_listener(0).map_err(|error| {
            format!("the socket of systemd cannot be served: {error}. Give one of ListenStream=")
        }),
        several => Err(format!(
            "systemd gives {several} sockets, and one is served: leave one ListenStream="
        )),
    }
}

pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Once it is done, [`tell_ready`] says so.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("systemd cannot be told of the reload: {error}"),
    }
}

/// Shows systemd that the engine's threads take their turns, if it wants to know
/// (`WatchdogSec=`): they are asked twice in the time it sets, and as long as
/// one of them does not answer, systemd is not told anything.
pub(super) fn watch(engine: EngineHandle) -> Result<(), Failure> {
    let Some(time) = sd_notify::watchdog_enabled() else {
        return Ok(());
    };
    let pause = (time / 2).max(Duration::from_millis(1));
    let watch = move || {
        loop {
            if engine.responds_within(pause / 2) {
                tell(&[NotifyState::Watchdog]);
            } else {
                log::error!("the engine did not answer within {:?}", pause / 2);
            }
            thread::park_timeout(pause / 2);
        }
    };
    let thread = thread::Builder::new().name("pushwheel-watchdog".into());
    let spawned = thread.spawn(watch).map(drop);
    spawned.map_err(|error| format!("there is no thread for the watchdog: {error}"))
}

fn tell(state: &[NotifyState<'_>]) {
    let lines = state.iter().map(|line| format!("{line}\n"));
    if let Err(error) = send(&lines.collect::<String>()) {
        log::warn!("systemd cannot be told how the server is doing: {error}");
    }
}

/// Sends as [`sd_notify::notify`] does, and does not wait for whoever does not
/// read: a server whose manager hangs reloads and ends all the same.
fn send(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(message.as_bytes(), path).map(drop)
}

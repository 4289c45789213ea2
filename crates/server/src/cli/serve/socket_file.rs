//! The files of UNIX sockets: their mode, and what a killed server has left.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Maximum connections that wait to be accepted. The kernel caps it at
/// `net.core.somaxconn`.
const LISTEN_QUEUE: i32 = 4096;

/// The file of a socket. Dropping it removes the file, unless another server has replaced
/// it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// The device and number of a file, and the time of its last change.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino(), file.ctime(), file.ctime_nsec()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // The next server replaces a file that is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a path. Replaces the file of a server that has ended without removing it.
///
/// The file has its mode before the first client can connect: until the socket listens,
/// connections are refused.
///
/// # Errors
/// `AddrInUse` if another program listens there, `AlreadyExists` if the file is not a
/// socket, and the system's.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            check_is_left(path, &address)?;
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(LISTEN_QUEUE)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    Ok((OwnedFd::from(socket).into(), file))
}

/// Fails unless the file is a socket on which no program listens.
fn check_is_left(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue of a program that listens must not block.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

//! Where a server listens, and whom it lets in.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::sockopt;

use super::socket::Socket;

/// Where a server listens.
#[derive(Debug)]
pub struct Listener {
    kind: ListenerKind,
}

#[derive(Debug)]
enum ListenerKind {
    /// A socket that this process made, and the file's inode number.
    OwnUnix(UnixListener, PathBuf, u64),
    /// A socket that somebody else made: who may connect is that one's business.
    GivenUnix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on a Unix socket that only its owner and root can connect to. A socket that nobody listens on any more is
    /// replaced. The file is removed when the listener is dropped.
    ///
    /// # Errors
    ///
    /// - `AddrInUse` if somebody listens there.
    /// - `AlreadyExists` if there is something else than a socket.
    /// - Errors of the file system.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                let message = "there is something that is not a socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                let message = "another server listens there";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // The socket has its mode before it has its name: nobody else gets in between.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let private = private_directory(parent.unwrap_or(Path::new(".")))?;
        let bound = bind_private(&private.join("s"), path);
        let removed = fs::remove_dir(&private);
        let (listener, inode) = bound?;
        let path = std::path::absolute(path)?;
        let listener = Self { kind: ListenerKind::OwnUnix(listener, path, inode) };
        removed?;
        Ok(listener)
    }

    /// Listens on a TCP address; port 0 takes a free one. Whether an address is safe is for the caller to decide: without
    /// TLS, whoever can reach it can read and write what is served.
    ///
    /// # Errors
    ///
    /// - Errors of the socket.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { kind: ListenerKind::Tcp(TcpListener::bind(address)?) })
    }

    /// Takes a Unix socket that listens already, such as one of systemd. Its file is not removed.
    #[must_use]
    pub fn from_unix(listener: UnixListener) -> Self {
        Self { kind: ListenerKind::GivenUnix(listener) }
    }

    /// Takes a TCP socket that listens already.
    #[must_use]
    pub fn from_tcp(listener: TcpListener) -> Self {
        Self { kind: ListenerKind::Tcp(listener) }
    }

    /// Returns the TCP address, if it is one.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            ListenerKind::OwnUnix(..) | ListenerKind::GivenUnix(_) => None,
            ListenerKind::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match &self.kind {
            ListenerKind::OwnUnix(listener, ..) | ListenerKind::GivenUnix(listener) => {
                listener.set_nonblocking(true)
            }
            ListenerKind::Tcp(listener) => listener.set_nonblocking(true),
        }
    }

    /// Accepts a connection. `PermissionDenied` if it is of somebody who has no business here.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.kind {
            ListenerKind::OwnUnix(listener, ..) => {
                let (stream, _) = listener.accept()?;
                let uid = sockopt::socket_peercred(&stream)?.uid;
                // The mode of the file says so too, but a mode can be changed by mistake.
                if !uid.is_root() && uid != rustix::process::geteuid() {
                    let message = format!("user {} may not connect", uid.as_raw());
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
                }
                Ok((Socket::unix(stream)?, Peer::Unix))
            }
            ListenerKind::GivenUnix(listener) => {
                Ok((Socket::unix(listener.accept()?.0)?, Peer::Unix))
            }
            ListenerKind::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::tcp(stream)?, Peer::Tcp(address)))
            }
        }
    }
}

/// Makes a directory that only this process uses. One that a crash has left behind is passed over.
fn private_directory(parent: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let path = parent.join(format!(".nbd-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || 99 < number => {
                return Err(error);
            }
            Err(_) => number += 1,
        }
    }
}

fn bind_private(private_path: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    let listener = UnixListener::bind(private_path)?;
    let named = fs::set_permissions(private_path, Permissions::from_mode(0o600))
        .and_then(|()| fs::metadata(private_path))
        .and_then(|metadata| fs::rename(private_path, path).map(|()| metadata.ino()));
    match named {
        Ok(inode) => Ok((listener, inode)),
        Err(error) => {
            fs::remove_file(private_path)?;
            Err(error)
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            ListenerKind::OwnUnix(listener, ..) | ListenerKind::GivenUnix(listener) => {
                listener.as_fd()
            }
            ListenerKind::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenerKind::OwnUnix(_, path, inode) = &self.kind {
            // Another server may have put its own socket there. A file that stays behind is replaced by the next server.
            let is_own = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == *inode);
            if is_own {
                drop(fs::remove_file(path));
            }
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A process that could open the Unix socket.
    Unix,
    /// A TCP address.
    Tcp(SocketAddr),
}

impl Peer {
    /// Returns the address if it is not one of this machine.
    pub(crate) fn remote_ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()).filter(|ip| !ip.is_loopback()),
            Self::Unix => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix => formatter.write_str("unix socket"),
            Self::Tcp(address) => address.fmt(formatter),
        }
    }
}

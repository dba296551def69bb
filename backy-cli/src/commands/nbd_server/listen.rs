//! Where the server listens: what systemd has opened, what the arguments say, or a socket that only its owner can open.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use nbd_server::Listener;

use super::clients::Address;
use crate::arguments::NbdServerArguments;
use crate::command_error::CommandError;

/// Port of NBD (IANA, Service Name and Transport Protocol Port Number Registry).
const NBD_PORT: u16 = 10809;

/// Opens the sockets, with the addresses that clients reach them by.
pub(super) fn listen(
    arguments: &NbdServerArguments,
    source: &str,
) -> Result<Vec<(Listener, Address)>, CommandError> {
    let is_told =
        arguments.socket.is_some() || arguments.host.is_some() || arguments.port.is_some();
    let mut given = ListenFd::from_env();
    let listeners = if 0 < given.len() && !is_told {
        activated(&mut given)?
    } else if arguments.host.is_some() || arguments.port.is_some() {
        tcp(arguments)?
    } else {
        let path = arguments.socket.clone().unwrap_or_else(|| default_path(source));
        let failed = |source| CommandError::Listen { address: path.display().to_string(), source };
        let listener = Listener::unix(&path).map_err(failed)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        vec![(listener, Address::Unix(path))]
    };
    let is_protected = arguments.tls_certificate.is_some() || arguments.insecure_plaintext;
    for (_, address) in &listeners {
        if let Address::Tcp(address) = address
            && !address.ip().is_loopback()
            && !is_protected
        {
            return Err(CommandError::Refused {
                what: format!("{address} can be reached from elsewhere, and nothing is encrypted"),
                hint: "use --tls-certificate, --tls-key and --tls-client-ca; a tunnel to --socket; or --insecure-plaintext".to_owned(),
            });
        }
    }
    Ok(listeners)
}

fn activated(given: &mut ListenFd) -> Result<Vec<(Listener, Address)>, CommandError> {
    let failed = |source| CommandError::Listen { address: "socket of systemd".to_owned(), source };
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        if let Ok(Some(listener)) = given.take_unix_listener(index) {
            let address = Address::Unix(path_of(&listener));
            listeners.push((Listener::from_unix(listener), address));
        } else if let Some(listener) = given.take_tcp_listener(index).map_err(failed)? {
            let address = Address::Tcp(listener.local_addr().map_err(failed)?);
            listeners.push((Listener::from_tcp(listener), address));
        }
    }
    Ok(listeners)
}

/// Returns the name of a socket; one without a name can still be given to a child.
fn path_of(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname());
    path.unwrap_or(Path::new("(unnamed)")).to_owned()
}

fn tcp(arguments: &NbdServerArguments) -> Result<Vec<(Listener, Address)>, CommandError> {
    let host = arguments.host.as_deref().unwrap_or("localhost");
    let port = arguments.port.unwrap_or(NBD_PORT);
    let failed = |source| CommandError::Listen { address: format!("{host}:{port}"), source };
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut listeners = Vec::new();
    let mut unavailable = None;
    for address in addresses {
        match Listener::tcp(address) {
            Ok(listener) => {
                let address = listener.tcp_address().unwrap_or(address);
                listeners.push((listener, Address::Tcp(address)));
                if port == 0 {
                    // Another address would get another port.
                    break;
                }
            }
            // "localhost" also means ::1, on machines without IPv6, too.
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                unavailable = Some(error);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    match unavailable {
        Some(error) if listeners.is_empty() => Err(failed(error)),
        _ => Ok(listeners),
    }
}

/// Returns the socket that is used if nothing else is said: in a directory that is the user's own.
fn default_path(source: &str) -> PathBuf {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from("/run"), PathBuf::from);
    directory.join(format!("backy-{source}.nbd"))
}

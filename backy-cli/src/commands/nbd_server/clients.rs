//! The commands that connect clients to a server, ready to be copied.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::content::{FileSystem, Volume};

/// Where a server can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What commands depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served<'a> {
    pub(super) address: &'a Address,
    pub(super) has_tls: bool,
    pub(super) is_writable: bool,
    pub(super) volumes: &'a [Volume],
}

/// Where a client keeps its certificates, in commands.
const CERTIFICATES: &str = "/etc/pki/nbd";

impl Address {
    /// Returns the URI of the default export (NBD URI specification,
    /// <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>).
    pub(super) fn uri(&self, has_tls: bool) -> String {
        let scheme = if has_tls { "nbds" } else { "nbd" };
        match self {
            Self::Unix(path) => format!("{scheme}+unix:///?socket={}", escaped(path)),
            Self::Tcp(address) => format!("{scheme}://{address}"),
        }
    }
}

/// Returns a label and a command each.
pub(super) fn commands(served: &Served<'_>) -> Vec<(&'static str, String)> {
    let Served { address, has_tls, is_writable, .. } = *served;
    let mut uri = address.uri(has_tls);
    if has_tls {
        let separator = if uri.contains('?') { '&' } else { '?' };
        uri = format!("{uri}{separator}tls-certificates={CERTIFICATES}");
    }
    let place = match address {
        Address::Unix(path) => format!("-unix {}", quoted(&path.display().to_string())),
        Address::Tcp(address) => format!("{} {}", address.ip(), address.port()),
    };
    let certificates = if has_tls {
        format!(
            " -certfile {CERTIFICATES}/client-cert.pem -keyfile {CERTIFICATES}/client-key.pem -cacertfile {CERTIFICATES}/ca-cert.pem"
        )
    } else {
        String::new()
    };
    let mut commands = vec![
        ("once", "modprobe nbd".to_owned()),
        ("attach", format!("nbd-client -C 4{certificates} {place} /dev/nbd0")),
    ];
    commands.extend(mounts(served).into_iter().map(|command| ("mount", command)));
    commands.push(("detach", detach(served.volumes)));
    let read_only = if is_writable { "" } else { " --read-only" };
    if !has_tls {
        // With TLS it wants its certificates as objects; nbd-client above does the same.
        let command =
            format!("qemu-nbd --connect=/dev/nbd0{read_only} --format=raw {}", quoted(&uri));
        commands.push(("or", command));
    }
    let read_only = if is_writable { "" } else { " -r" };
    // It mounts a directory over the one that is named, so that must not be one with other files.
    let mount = format!("mkdir -p ~/nbd; nbdfuse{read_only} ~/nbd/disk.img {}", quoted(&uri));
    commands.push(("no root", mount));
    commands.push(("list", format!("nbdinfo --list {}", quoted(&uri))));
    commands
}

fn mounts(served: &Served<'_>) -> Vec<String> {
    let mount = |volume: &Volume| {
        let file_system = volume.file_system;
        let options = match served.is_writable {
            true => file_system.writable_options(),
            false => file_system.read_only_options(),
        };
        let device = device(volume);
        match options {
            Some(options) => format!("mount -o {options} {device} /mnt"),
            // Only there: this machine may have a volume group of the same name.
            None => format!(
                "vgchange -ay --devices {device}   # LVM; then mount -o ro /dev/GROUP/VOLUME /mnt"
            ),
        }
    };
    served.volumes.iter().map(mount).collect()
}

/// Volume groups that are active hold the device, so they end first.
fn detach(volumes: &[Volume]) -> String {
    let is_group = |volume: &&Volume| volume.file_system == FileSystem::Lvm;
    let deactivate = |volume| format!("vgchange -an --devices {}; ", device(volume));
    let groups: String = volumes.iter().filter(is_group).map(deactivate).collect();
    format!("umount /mnt; {groups}nbd-client -d /dev/nbd0")
}

fn device(volume: &Volume) -> String {
    match volume.partition {
        0 => "/dev/nbd0".to_owned(),
        number => format!("/dev/nbd0p{number}"),
    }
}

/// Returns a word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |symbol: char| symbol.is_ascii_alphanumeric() || "/._-+:,@=".contains(symbol);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Returns a path as a part of a URI (RFC 3986, section 2.1).
fn escaped(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    let escape = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.as_os_str().as_encoded_bytes().iter().copied().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT: Volume =
        Volume { partition: 1, file_system: FileSystem::Ext { needs_recovery: true } };

    fn all(address: &Address, has_tls: bool, is_writable: bool) -> Vec<String> {
        let served = Served { address, has_tls, is_writable, volumes: &[EXT] };
        commands(&served).into_iter().map(|(_, command)| command).collect()
    }

    #[test]
    fn commands_for_a_unix_socket_name_it_in_each_way() {
        let commands = all(&Address::Unix("/run/my disk.sock".into()), false, false);
        let expected = [
            "modprobe nbd",
            "nbd-client -C 4 -unix '/run/my disk.sock' /dev/nbd0",
            "mount -o ro,noload /dev/nbd0p1 /mnt",
            "umount /mnt; nbd-client -d /dev/nbd0",
            "qemu-nbd --connect=/dev/nbd0 --read-only --format=raw 'nbd+unix:///?socket=/run/my%20disk.sock'",
            "mkdir -p ~/nbd; nbdfuse -r ~/nbd/disk.img 'nbd+unix:///?socket=/run/my%20disk.sock'",
            "nbdinfo --list 'nbd+unix:///?socket=/run/my%20disk.sock'",
        ];
        assert_eq!(commands, expected);
    }

    #[test]
    fn writable_disks_are_mounted_so_that_journals_replay() {
        let address = Address::Tcp("[::1]:10809".parse().unwrap());
        let commands = all(&address, false, true);
        assert_eq!(commands[1], "nbd-client -C 4 ::1 10809 /dev/nbd0");
        assert_eq!(commands[2], "mount -o rw /dev/nbd0p1 /mnt");
        assert_eq!(commands[5], "mkdir -p ~/nbd; nbdfuse ~/nbd/disk.img 'nbd://[::1]:10809'");
    }

    #[test]
    fn volume_groups_are_activated_on_the_device_alone_and_end_before_it() {
        let address = Address::Unix("/run/s".into());
        let lvm = Volume { partition: 2, file_system: FileSystem::Lvm };
        let served =
            Served { address: &address, has_tls: false, is_writable: false, volumes: &[lvm] };
        let commands = commands(&served);
        assert!(commands[2].1.starts_with("vgchange -ay --devices /dev/nbd0p2 "), "{commands:?}");
        let detach = "umount /mnt; vgchange -an --devices /dev/nbd0p2; nbd-client -d /dev/nbd0";
        assert_eq!(commands[3].1, detach);
    }

    #[test]
    fn with_tls_clients_are_told_their_certificates() {
        let commands = all(&Address::Tcp("192.0.2.1:10809".parse().unwrap()), true, false);
        assert!(commands[1].contains("-cacertfile /etc/pki/nbd/ca-cert.pem 192.0.2.1 10809"));
        assert!(commands[4].ends_with("'nbds://192.0.2.1:10809?tls-certificates=/etc/pki/nbd'"));
    }
}

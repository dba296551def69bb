//! Lines to the system log: RFC 3164 datagrams to `/dev/log`, as local daemons send them.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the system log listens.
const SOCKET: &str = "/dev/log";

/// Facility local3, as whisper-backup has it: RFC 3164, section 4.1.1.
const FACILITY: u8 = 19 << 3;

/// An open system log.
#[derive(Debug)]
pub(crate) struct Syslog {
    socket: UnixDatagram,
}

impl Syslog {
    /// Connects to the system log of this machine.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET))
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A log that nobody reads must not hold a backup up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Sends a line. A log that does not take it does not end a backup.
    pub(crate) fn write(&self, level: &str, message: &str) {
        let severity = match level {
            "ERROR" => 3,
            "WARNING" => 4,
            "DEBUG" => 7,
            _ => 6,
        };
        let (priority, process) = (FACILITY | severity, std::process::id());
        let line = format!("<{priority}>backy[{process}]: {}", message.replace('\n', " "));
        self.socket.send(line.as_bytes()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_facility_severity_and_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let log = Syslog::open_at(&path).unwrap();
        for (level, priority) in [("ERROR", 155), ("WARNING", 156), ("INFO", 158), ("DEBUG", 159)] {
            log.write(level, "a\nb");
            let mut buffer = [0; 100];
            let len = server.recv(&mut buffer).unwrap();
            let expected = format!("<{priority}>backy[{}]: a b", std::process::id());
            assert_eq!(String::from_utf8_lossy(&buffer[..len]), expected);
        }
    }
}

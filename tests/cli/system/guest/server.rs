//! A server that the guest reaches, and the commands that it prints.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;

use rustix::process::Signal;

use super::machine::Guest;
use crate::scene::Scene;
use crate::system::running::Running;

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    running: Running,
    /// A label and a command each, as printed; the address is that by which the guest knows the host.
    commands: Vec<(String, String)>,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server on a free port, and waits until it is there.
    #[track_caller]
    pub(super) fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let listen = ["nbd-server", "-H", "127.0.0.1", "-p", "0"];
        let mut running = Running::start(&mut scene.command([&listen, arguments].concat()));
        let mut stdout = BufReader::new(running.take_stdout());
        let mut commands = Vec::new();
        // This one is printed last.
        while commands.last().is_none_or(|(label, _)| label != "no root") {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                panic!("the server ended: {}", running.finish().stderr);
            }
            if let Some((label, command)) =
                line.strip_prefix("  ").and_then(|line| line.split_at_checked(8))
            {
                let command = command.trim().replace("127.0.0.1", "10.0.2.2");
                commands.push((label.trim().to_owned(), command));
            }
        }
        Self { running, commands, _stdout: stdout }
    }

    fn commands(&self, label: &str) -> Vec<&str> {
        let labelled = self.commands.iter().filter(|(found, _)| found == label);
        labelled.map(|(_, command)| command.as_str()).collect()
    }

    /// Attaches the guest's `/dev/nbd0` as printed, and waits for so many partitions.
    #[track_caller]
    pub(super) fn attach(&self, guest: &mut Guest, partition_count: u32) {
        self.attach_as(guest, "/dev/nbd0");
        if partition_count != 0 {
            guest.wait_for(&format!("[ -b /dev/nbd0p{partition_count} ]"));
        }
    }

    /// Attaches another device of the guest.
    #[track_caller]
    pub(super) fn attach_as(&self, guest: &mut Guest, device: &str) {
        let [command] = self.commands("attach")[..] else { panic!("{:?}", self.commands) };
        assert!(command.contains(" -C 4 "), "{command}");
        guest.succeeds(&command.replace("/dev/nbd0", device));
        // The kernel looks for partitions when somebody opens the device: elsewhere udev does.
        guest.succeeds(&format!("dd if={device} of=/dev/null bs=4096 count=1"));
    }

    /// Returns the printed commands that mount what is on the disk.
    pub(super) fn mounts(&self) -> Vec<&str> {
        self.commands("mount")
    }

    /// Unmounts and detaches in the guest, as printed.
    #[track_caller]
    pub(super) fn detach(&self, guest: &mut Guest) {
        let [command] = self.commands("detach")[..] else { panic!("{:?}", self.commands) };
        guest.succeeds(command);
    }

    /// Detaches in the guest what is not mounted.
    #[track_caller]
    pub(super) fn detach_device(&self, guest: &mut Guest) {
        guest.succeeds("nbd-client -d /dev/nbd0");
    }

    /// Ends the server as an operator does, and returns what it said.
    #[track_caller]
    pub(super) fn stop(mut self) -> String {
        self.running.signal(Signal::TERM);
        self.running.wait_until(|| false);
        self.running.succeeds().stderr
    }
}

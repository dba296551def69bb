//! TLS: who gets in, who does not, and that bytes come through unchanged. Certificates are made by `certtool`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nbd_server::proto::{
    Headers, NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_EXPORT_NAME, NBD_OPT_GO,
    NBD_OPT_INFO, NBD_OPT_LIST, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_ERR_INVALID, NBD_REP_ERR_TLS_REQD,
};
use nbd_server::{Limits, Tls, TlsError};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::scene::{Client, Scene, disks};
use crate::wire;

type TlsStream = StreamOwned<ClientConnection, UnixStream>;

/// Certificates in a directory, under the names that libnbd and qemu look for.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Option<Self> {
        Self::with_keys(&["--key-type=ed25519"])
    }

    /// Returns `None`, and says so, if there is no program to make them.
    fn with_keys(keys: &[&str]) -> Option<Self> {
        let certificates = Self(TempDir::new().unwrap());
        if Command::new("certtool").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED nbd-tls: certtool is not installed (Debian package gnutls-bin)");
            return None;
        }
        let ca = "cn = test\nca\ncert_signing_key\nexpiration_days = 2\n";
        let server =
            "cn = localhost\ndns_name = localhost\ntls_www_server\nsigning_key\nencryption_key\n";
        let client = "cn = client\ntls_www_client\nsigning_key\nencryption_key\n";
        certificates.sign(keys, "ca", ca, None);
        certificates.sign(keys, "server", server, Some("ca"));
        certificates.sign(keys, "client", client, Some("ca"));
        certificates.sign(keys, "other-ca", ca, None);
        certificates.sign(keys, "other-client", client, Some("other-ca"));
        Some(certificates)
    }

    fn sign(&self, keys: &[&str], name: &str, template: &str, authority: Option<&str>) {
        let path = |name: &str, kind: &str| self.0.path().join(format!("{name}-{kind}.pem"));
        let (key, template_path) = (path(name, "key"), path(name, "template"));
        fs::write(&template_path, template).unwrap();
        let certtool = |arguments: &[&str]| {
            let mut command = Command::new("certtool");
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let mut generate = certtool(keys);
        generate.args(["--generate-privkey", "--outfile"]);
        assert!(generate.arg(&key).status().unwrap().success());
        let kind =
            if authority.is_some() { "--generate-certificate" } else { "--generate-self-signed" };
        let mut sign = certtool(&[kind, "--load-privkey"]);
        sign.arg(&key).arg("--template").arg(&template_path);
        sign.arg("--outfile").arg(path(name, "cert"));
        if let Some(authority) = authority {
            sign.arg("--load-ca-certificate").arg(path(authority, "cert"));
            sign.arg("--load-ca-privkey").arg(path(authority, "key"));
        }
        assert!(sign.status().unwrap().success());
    }

    fn pem(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(format!("{name}.pem"))).unwrap()
    }

    fn tls(&self) -> Tls {
        Tls::new(&self.pem("server-cert"), &self.pem("server-key"), &self.pem("ca-cert")).unwrap()
    }

    fn scene(&self) -> Scene {
        let limits = Limits { handshake_timeout: Duration::from_secs(5), ..Limits::default() };
        Scene::with_tls(disks(|disk| disk.is_writable = true), limits, Some(self.tls()))
    }

    /// Returns a client's side of TLS, with this certificate or none.
    fn client(
        &self,
        name: Option<&str>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem("ca-cert")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let certificate = self.pem(&format!("{name}-cert"));
                let chain = vec![CertificateDer::from_pem_slice(&certificate).unwrap()];
                let key = self.pem(&format!("{name}-key"));
                let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    /// Connects through TLS.
    fn connect(
        &self,
        scene: &Scene,
        name: Option<&str>,
        version: &'static SupportedProtocolVersion,
    ) -> Client<TlsStream> {
        let mut client = scene.client();
        assert_eq!(client.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ACK);
        let connection = self.client(name, version);
        Client::after_greeting(StreamOwned::new(connection, client.stream))
    }
}

#[test]
fn data_comes_through_unchanged() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    for version in [&TLS12, &TLS13] {
        for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
            let mut client = certificates.connect(&scene, Some("client"), version);
            let mut second = certificates.connect(&scene, Some("client"), version);
            client.begin(headers).unwrap();
            second.begin(headers).unwrap();
            let payload: Vec<u8> = (0..1_u32 << 18).flat_map(|at| (at * 7).to_le_bytes()).collect();
            let len = 1 << 20;
            let written = client.ask(NBD_CMD_WRITE, 0, 0, len, &payload).unwrap();
            assert_eq!(written.error, 0);
            for _ in 0..20 {
                client.send(NBD_CMD_READ, 0, 0, len, &[]).unwrap();
                second.send(NBD_CMD_READ, 0, 0, len, &[]).unwrap();
            }
            for _ in 0..20 {
                assert!(client.answer().unwrap().data == payload);
                assert!(second.answer().unwrap().data == payload);
            }
            // Many writes at once: the server reads more at once than one of them.
            for at in 0..200 {
                let place = usize::try_from(at).unwrap() * 5000;
                let part = &payload[place..place + 5000];
                client.send(NBD_CMD_WRITE, 0, at * 5000, 5000, part).unwrap();
            }
            for _ in 0..200 {
                assert_eq!(client.answer().unwrap().error, 0);
            }
            client.send(NBD_CMD_DISC, 0, 0, 0, &[]).unwrap();
            // An end without a farewell of TLS would be an error here.
            assert_eq!(io::Read::read_to_end(&mut client.stream, &mut Vec::new()).unwrap(), 0);
        }
    }
    scene.stop();
}

#[test]
fn only_clients_with_the_right_certificate_get_in() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    for version in [&TLS12, &TLS13] {
        for name in [None, Some("other-client"), Some("server")] {
            let mut client = certificates.connect(&scene, name, version);
            // With TLS 1.3 a client hears of it only when it reads.
            assert!(client.begin(Headers::Simple).is_err(), "{name:?}");
        }
    }
    assert!(scene.disks.opened.lock().unwrap().is_empty());
    certificates.connect(&scene, Some("client"), &TLS13).begin(Headers::Simple).unwrap();
    let events = scene.stop();
    assert_eq!(events.iter().filter(|line| line.starts_with("connected")).count(), 1);
}

#[test]
fn clients_without_tls_are_told_and_get_nothing() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    let mut client = scene.client();
    let info = wire::info(b"disk", &[]);
    let queries = wire::queries(b"disk", &["base:allocation"]);
    let options: [(u32, &[u8]); 7] = [
        (NBD_OPT_LIST, &[]),
        (NBD_OPT_INFO, &info),
        (NBD_OPT_GO, &info),
        (NBD_OPT_STRUCTURED_REPLY, &[]),
        (NBD_OPT_SET_META_CONTEXT, &queries),
        (11, &[]),
        (99, &[]),
    ];
    for (option, payload) in options {
        assert_eq!(client.last_reply(option, payload).unwrap(), NBD_REP_ERR_TLS_REQD);
    }
    client.stream.write_all(&wire::option(NBD_OPT_EXPORT_NAME, b"disk")).unwrap();
    client.assert_closed();
    assert!(scene.disks.opened.lock().unwrap().is_empty());
    scene.stop();
}

#[test]
fn tls_is_not_begun_twice() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    let mut client = certificates.connect(&scene, Some("client"), &TLS13);
    assert_eq!(client.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ERR_INVALID);
    client.begin(Headers::Structured).unwrap();
    assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().data, [0, 0, 0, 1]);
    scene.stop();
}

/// CVE-2021-3716 (nbdkit): options that somebody on the way put in before STARTTLS were still in force after it.
#[test]
fn cve_2021_3716_nothing_from_before_tls_is_in_force_after_it() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    let mut client = scene.client();
    assert_eq!(client.last_reply(NBD_OPT_STRUCTURED_REPLY, &[]).unwrap(), NBD_REP_ERR_TLS_REQD);
    assert_eq!(client.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ACK);
    let connection = certificates.client(Some("client"), &TLS13);
    let mut client = Client::after_greeting(StreamOwned::new(connection, client.stream));
    // Simple replies, since nothing else was agreed on with this client.
    client.begin(Headers::Simple).unwrap();
    assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().data, [0, 0, 0, 1]);
    drop(client);
    // An option in plain text right behind STARTTLS is taken for a part of TLS, and ends the connection.
    let structured = wire::option(NBD_OPT_STRUCTURED_REPLY, &[]);
    let mut client = scene.client();
    let bytes = [wire::option(NBD_OPT_STARTTLS, &[]), structured].concat();
    client.stream.write_all(&bytes).unwrap();
    let replies = wire::read_option_replies(&mut client.stream, NBD_OPT_STARTTLS).unwrap();
    assert_eq!(replies[0].0, NBD_REP_ACK);
    let connection = certificates.client(Some("client"), &TLS13);
    let mut client = Client::after_greeting(StreamOwned::new(connection, client.stream));
    assert!(client.begin(Headers::Simple).is_err());
    assert!(scene.stop().iter().any(|line| line.starts_with("disconnected") && line.len() > 14));
}

#[test]
fn a_handshake_of_tls_that_stalls_ends_at_the_deadline() {
    let Some(certificates) = Certificates::make() else { return };
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let scene = Scene::with_tls(disks(|_| {}), limits, Some(certificates.tls()));
    let mut silent = scene.client();
    assert_eq!(silent.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ACK);
    let mut dripping = scene.client();
    assert_eq!(dripping.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ACK);
    // The beginning of a hello of 16 KiB.
    let hello = [&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3][..], &[0; 10_000]].concat();
    for byte in hello {
        std::thread::sleep(Duration::from_millis(5));
        if dripping.stream.write_all(&[byte]).is_err() {
            break;
        }
    }
    silent.assert_closed();
    dripping.assert_closed();
    scene.stop();
}

#[test]
fn garbage_and_cuts_in_tls_end_one_connection() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    for turn in 0..40_u8 {
        let mut client = certificates.connect(&scene, Some("client"), &TLS13);
        client.begin(Headers::Structured).unwrap();
        client.send(NBD_CMD_READ, 0, 0, 1 << 20, &[]).unwrap();
        // Bytes under TLS that are no record of it.
        let socket = &mut client.stream.sock;
        socket.write_all(&vec![turn.wrapping_mul(41); usize::from(turn) * 7 + 1]).unwrap();
        drop(client);
    }
    let mut client = certificates.connect(&scene, Some("client"), &TLS13);
    client.begin(Headers::Structured).unwrap();
    assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().error, 0);
    drop(client);
    scene.stop();
}

#[test]
fn stopping_a_server_with_tls_ends() {
    let Some(certificates) = Certificates::make() else { return };
    let scene = certificates.scene();
    let mut half = scene.client();
    assert_eq!(half.last_reply(NBD_OPT_STARTTLS, &[]).unwrap(), NBD_REP_ACK);
    let mut idle = certificates.connect(&scene, Some("client"), &TLS12);
    idle.begin(Headers::Simple).unwrap();
    scene.stop();
    half.assert_closed();
    idle.assert_closed();
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let Some(certificates) = Certificates::make() else { return };
    let pem = |name: &str| certificates.pem(name);
    let (cert, key, ca) = (pem("server-cert"), pem("server-key"), pem("ca-cert"));
    let other = pem("client-key");
    for (cert, key, ca) in [
        (&b""[..], &key[..], &ca[..]),
        (&cert, b"", &ca),
        (&cert, &key, b""),
        (&cert, &cert, &ca),
        (&key, &key, &ca),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n", &key, &ca),
    ] {
        assert!(matches!(Tls::new(cert, key, ca), Err(TlsError::Pem { .. })));
    }
    assert!(matches!(Tls::new(&cert, &other, &ca), Err(TlsError::Config(_))));
}

/// Runs a program against a server on a TCP port, with certificates where it looks for them.
fn run(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        println!("SKIPPED nbd-tls: {program} is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

/// A directory as `nbdinfo` and `qemu-img` want it.
fn directory(certificates: &Certificates, client: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let put = |name: &str, from: &str| {
        fs::write(directory.path().join(name), certificates.pem(from)).unwrap();
    };
    put("ca-cert.pem", "ca-cert");
    put("client-cert.pem", &format!("{client}-cert"));
    put("client-key.pem", &format!("{client}-key"));
    directory
}

fn uri(socket: &Path, directory: &TempDir) -> String {
    let (socket, directory) = (socket.display(), directory.path().display());
    format!("nbds+unix:///disk?socket={socket}&tls-certificates={directory}&tls-hostname=localhost")
}

#[test]
fn libnbd_and_qemu_come_through_with_the_right_certificate_only() {
    // qemu wants keys that can encipher keys.
    let keys = ["--key-type=rsa", "--bits=2048"];
    let Some(certificates) = Certificates::with_keys(&keys) else { return };
    let scene = certificates.scene();
    let (right, wrong) =
        (directory(&certificates, "client"), directory(&certificates, "other-client"));
    let copy = right.path().join("copy");
    let socket = scene.path();
    if let Some((is_done, text)) = run("nbdinfo", &["--size", &uri(&socket, &right)]) {
        assert!(is_done && text.contains("1048576"), "{text}");
        let (is_done, text) = run("nbdinfo", &["--size", &uri(&socket, &wrong)]).unwrap();
        assert!(!is_done, "{text}");
        let plain = format!("nbd+unix:///disk?socket={}", socket.display());
        let (is_done, text) = run("nbdinfo", &["--size", &plain]).unwrap();
        assert!(!is_done, "{text}");
        let (is_done, text) =
            run("nbdcopy", &[&uri(&socket, &right), copy.to_str().unwrap()]).unwrap();
        assert!(is_done, "{text}");
        assert!(fs::read(&copy).unwrap() == *scene.disks.disks[0].1.lock());
        // And back, which writes.
        let bytes: Vec<u8> = (0..1_u32 << 18).flat_map(|at| (at * 3).to_be_bytes()).collect();
        fs::write(&copy, &bytes).unwrap();
        let (is_done, text) =
            run("nbdcopy", &[copy.to_str().unwrap(), &uri(&socket, &right)]).unwrap();
        assert!(is_done, "{text}");
        assert!(bytes == *scene.disks.disks[0].1.lock());
    }
    for (directory, is_right) in [(&right, true), (&wrong, false)] {
        let credentials =
            format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", directory.path().display());
        let image = format!(
            "driver=nbd,server.type=unix,server.path={},export=disk,tls-creds=tls0,tls-hostname=localhost",
            socket.display()
        );
        let arguments = ["info", "--object", &credentials, "--image-opts", &image];
        if let Some((is_done, text)) = run("qemu-img", &arguments) {
            assert_eq!(is_done, is_right, "{text}");
        }
    }
    scene.stop();
}

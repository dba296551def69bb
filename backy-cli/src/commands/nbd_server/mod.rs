//! `nbd-server`: serves revisions as block devices.

mod catalog;
mod changes;
mod clients;
mod content;
mod export;
mod exports;
mod journal;
mod listen;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chunkstore::Overlay;
use nbd_server::{Limits, Options, Server, Tls};

use self::catalog::Catalog;
use self::clients::{Address, Served, commands};
use self::exports::{RevisionExports, Writes};
use self::journal::Journal;
use crate::arguments::NbdServerArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::own_files;
use crate::reports::NbdServerReport;
use crate::ui::Ui;

pub(crate) fn run(
    path: &Path,
    arguments: &NbdServerArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let source =
        directory.source_name()?.map_or_else(|| "store".to_owned(), |name| name.to_string());
    for error in &directory.history(&store, ui)?.damaged {
        ui.detail(&format!("not served: {error}"));
    }
    let tls = read_tls(arguments)?;
    if let Some(overlay) = &arguments.overlay {
        own_files::refuse("overlay", overlay, directory.path(), &directory.store_path())?;
    }
    let cache_len = usize::try_from(arguments.cache).unwrap_or(usize::MAX);
    let catalog = Arc::new(Catalog::new(directory, store, cache_len));
    let writes = writes(arguments, &catalog)?;
    let overlay = match &writes {
        Writes::Kept(overlay) => Some(Arc::clone(overlay)),
        Writes::Refused | Writes::Thrown { .. } => None,
    };
    let exports =
        RevisionExports::new(Arc::clone(&catalog), arguments.revision().to_owned(), writes);
    // What the arguments name is there, before anybody connects. It stays pinned for as long as the server runs.
    let default = exports.open_default()?;
    let listeners = listen::listen(arguments, &source)?;
    let (listeners, addresses): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
    let (journal, lines) = Journal::new();
    let journal = Arc::new(journal);
    let options = Options { limits: Limits::default(), tls, monitor: journal.clone() };
    let server =
        Server::start(listeners, Arc::new(exports), options).map_err(CommandError::Threads)?;
    tell(arguments, &default, &addresses, ui)?;

    journal::print_until_stopped(&lines, ui);
    ui.note("stopping: requests that have begun are finished");
    server.stop_handle().stop();
    server.wait();
    journal::print_rest(&lines, ui);
    if 0 < journal.dropped_count() {
        ui.warning(&format!(
            "{} were too many to print",
            human::count(journal.dropped_count(), "line")
        ));
    }
    drop(default);
    overlay.map_or(Ok(()), |overlay| Ok(overlay.close()?))
}

/// Says what is served, and how to reach it. Whoever started the server may connect once this is printed.
fn tell(
    arguments: &NbdServerArguments,
    default: &export::RevisionExport,
    addresses: &[Address],
    ui: &Ui,
) -> Result<(), CommandError> {
    let has_tls = arguments.tls_certificate.is_some();
    let volumes = content::volumes(default.reader());
    let uris: Vec<String> = addresses.iter().map(|address| address.uri(has_tls)).collect();
    let revision = default.reader().revision();
    let report = NbdServerReport {
        uris: &uris,
        revision: revision.record.id,
        size: default.reader().len(),
        writable: default.is_writable(),
        overlay: arguments.overlay.as_deref(),
    };
    ui.result(&report, || {
        let mut text = format!(
            "serving revision {} by default: {}\n",
            revision.record.id,
            export::describe(revision)
        );
        text.push_str(match (&arguments.overlay, arguments.writable) {
            (Some(_), _) => {
                "writes go to the overlay; `backy backup --from-overlay` makes a revision of it\n"
            }
            (None, true) => "writes are forgotten when the server ends\n",
            (None, false) => "read-only\n",
        });
        text.push_str("others by name: an id, a number from the newest, tag:NAME, ...\n");
        for address in addresses {
            let served =
                Served { address, has_tls, is_writable: default.is_writable(), volumes: &volumes };
            text.push_str(&format!("\n{}\n", address.uri(has_tls)));
            for (label, command) in commands(&served) {
                text.push_str(&format!("  {label:<8} {command}\n"));
            }
        }
        text
    })
}

fn read_tls(arguments: &NbdServerArguments) -> Result<Option<Tls>, CommandError> {
    let (Some(certificate), Some(key), Some(authorities)) =
        (&arguments.tls_certificate, &arguments.tls_key, &arguments.tls_client_ca)
    else {
        return Ok(None);
    };
    let read = |path: &PathBuf| {
        let failed = |source| CommandError::File { action: "read", path: path.clone(), source };
        fs::read(path).map_err(failed)
    };
    Ok(Some(Tls::new(&read(certificate)?, &read(key)?, &read(authorities)?)?))
}

/// Opens or makes the overlay, if there shall be one.
fn writes(arguments: &NbdServerArguments, catalog: &Catalog) -> Result<Writes, CommandError> {
    if arguments.writable {
        let directory = std::env::var_os("TMPDIR").filter(|path| !path.is_empty());
        let directory = directory.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        return Ok(Writes::Thrown { directory, overlays: Mutex::default() });
    }
    let Some(path) = &arguments.overlay else { return Ok(Writes::Refused) };
    let is_there = path.try_exists().map_err(|source| CommandError::File {
        action: "look for",
        path: path.clone(),
        source,
    })?;
    if !is_there {
        let id = catalog.find(arguments.revision())?.record.id;
        return Ok(Writes::Kept(Arc::new(Overlay::create(path, catalog.open(&id)?)?)));
    }
    let overlay = catalog.open_overlay(path)?;
    let found = overlay.revision().record.id;
    if let Some(text) = &arguments.revision {
        let wanted = catalog.find(text)?.record.id;
        if wanted != found {
            return Err(CommandError::Refused {
                what: format!(
                    "overlay {} lies over revision {found}, not {wanted}",
                    path.display()
                ),
                hint: "leave -r out, or name another overlay file".to_owned(),
            });
        }
    }
    Ok(Writes::Kept(Arc::new(overlay)))
}

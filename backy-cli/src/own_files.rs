//! The files of a backup itself: never written over by a restore, and never backed up into
//! themselves.

use std::path::{Path, PathBuf};

use chunkstore::layout::Layout;

use crate::command_error::CommandError;
use crate::config;

/// Files at the top of a store's directory. Its directories are in [`Layout::DIRECTORIES`].
const STORE_FILES: [&str; 3] = ["store.json", "index.redb", "ballast"];

/// Refuses a path that leads to the configuration in `directory` or into the store in `store`.
/// Other files may lie beside these. `role` is what the path was given as.
pub(crate) fn refuse(
    role: &str,
    path: &Path,
    directory: &Path,
    store: &Path,
) -> Result<(), CommandError> {
    let real = real_path(path);
    let first_name_in = |parent: &Path| {
        let inside = real.strip_prefix(real_path(parent)).ok()?;
        Some(inside.iter().next().unwrap_or_default().to_owned())
    };
    let is_config = first_name_in(directory).is_some_and(|name| name == config::FILE_NAME);
    let is_store = first_name_in(store).is_some_and(|name| {
        name.is_empty() || Layout::DIRECTORIES.iter().chain(&STORE_FILES).any(|own| name == *own)
    });
    if !is_config && !is_store {
        return Ok(());
    }
    Err(CommandError::Refused {
        what: format!("{role} {} belongs to the backup itself", path.display()),
        hint: format!("use a {role} outside of the store"),
    })
}

/// Returns whether this is the name of something that is made in a backup directory before it has a store.
pub(crate) fn is_left_by_a_start(name: &Path) -> bool {
    Layout::DIRECTORIES.iter().any(|own| name == Path::new(own))
}

/// Returns the path without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = absolute.ancestors().find_map(|ancestor| {
        let rest = absolute.strip_prefix(ancestor).ok()?;
        // Joining nothing would put a slash behind the name of a file.
        let real = ancestor.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    real.unwrap_or(absolute)
}

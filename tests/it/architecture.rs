//! Rules of the source tree that a program can check.
//!
//! The layers are those of the table in `ARCHITECTURE.md`, section "Code map": the document is the rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have. Longer ones are named here, with the reason beside them.
const LINES_MAX: usize = 600;
const LONG_FILES: [&str; 0] = [];

const PACKAGES: [&str; 6] = ["chunkstore", "nbd-server", "backy-cli", "tests", "benches", "fuzz"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Returns all source files of a directory, by their paths in it.
fn sources(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut remaining = vec![directory.to_path_buf()];
    while let Some(next) = remaining.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let is_built = path.ends_with("target") && next.join("Cargo.toml").exists();
            if path.is_dir() && !is_built {
                remaining.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(directory).unwrap().to_path_buf(), text);
            }
        }
    }
    found
}

/// Returns the product code of a file: no comments, no unit tests.
fn code(text: &str) -> Vec<&str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// Returns whether a file is compiled for tests only.
fn is_test(path: &Path) -> bool {
    let is_tests = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    path.iter().any(is_tests)
        || ["vfs/behaviour.rs", "format/test_support.rs"].iter().any(|name| path == Path::new(name))
}

/// Returns the module below the crate that a file belongs to.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Reads the table of layers: module to number of its layer, from values up to verbs.
fn layers() -> BTreeMap<String, usize> {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = document.lines().skip_while(|line| !line.starts_with("| layer "));
    let mut layers = BTreeMap::new();
    let mut layer = 0;
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        layer += usize::from(!cells[1].is_empty());
        for module in cells[2].split(',') {
            let module = module.trim().trim_matches('`').trim_end_matches("/*").to_owned();
            assert!(layers.insert(module.clone(), layer).is_none(), "{module} is in two layers");
        }
    }
    assert_eq!(layer, 6, "the table has other layers");
    layers
}

#[test]
fn modules_use_their_own_layer_and_lower_ones() {
    let layers = layers();
    let mut wrong = Vec::new();
    for (path, text) in sources(&root().join("chunkstore/src")) {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let own = layers.get(&module);
        let own = own.unwrap_or_else(|| panic!("{module} is not in the table of ARCHITECTURE.md"));
        for line in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect();
                match layers.get(&used) {
                    Some(layer) if layer <= own => {}
                    Some(_) => wrong.push(format!("{}: {module} uses {used}", path.display())),
                    None => wrong.push(format!("{}: use of {used}", path.display())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn table_of_layers_names_no_module_that_is_gone() {
    let found: Vec<String> =
        sources(&root().join("chunkstore/src")).keys().map(|path| module_of(path)).collect();
    for module in layers().keys() {
        assert!(found.contains(module), "ARCHITECTURE.md names {module}");
    }
}

#[test]
fn imports_name_one_module_each() {
    for (path, text) in sources(&root().join("chunkstore/src")) {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let is_vague = line.contains("use crate::*") || line.contains("use crate::{");
            assert!(!is_vague, "{}: {line}", path.display());
        }
    }
}

#[test]
fn only_vfs_source_and_target_touch_files() {
    for (path, text) in sources(&root().join("chunkstore/src")) {
        let module = module_of(&path);
        if is_test(&path) || ["vfs", "source", "target"].contains(&module.as_str()) {
            continue;
        }
        for line in code(&text) {
            let touches = ["std::fs", "rustix::fs", "File::", "OpenOptions"];
            let found = touches.iter().find(|name| line.contains(**name));
            assert!(found.is_none(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn pure_layers_know_neither_files_nor_clocks_nor_threads() {
    let layers = layers();
    for (path, text) in sources(&root().join("chunkstore/src")) {
        if is_test(&path) || layers.get(&module_of(&path)).is_none_or(|layer| 2 < *layer) {
            continue;
        }
        for line in code(&text) {
            let impure = ["std::fs", "std::thread", "std::path", "SystemTime", "Instant"];
            let found = impure.iter().find(|name| line.contains(**name));
            assert!(found.is_none(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn libraries_print_nothing() {
    for library in ["chunkstore/src", "nbd-server/src"] {
        for (path, text) in sources(&root().join(library)) {
            for line in code(&text) {
                let printing = ["println!", "print!", "dbg!"];
                let found = printing.iter().find(|name| line.contains(**name));
                assert!(is_test(&path) || found.is_none(), "{library}/{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn sources_are_ascii_and_not_too_long() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        for (path, text) in sources(&root().join(package)) {
            let name = format!("{package}/{}", path.display());
            if !text.is_ascii() {
                wrong.push(format!("{name} is not ASCII"));
            }
            let lines = text.lines().count();
            if LINES_MAX < lines && !LONG_FILES.contains(&name.as_str()) {
                wrong.push(format!("{name} has {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn product_crates_depend_on_each_other_as_drawn() {
    for (package, forbidden) in
        [("chunkstore", ["nbd-server", "backy"]), ("nbd-server", ["chunkstore", "backy"])]
    {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        for name in forbidden {
            let found = manifest.lines().find(|line| line.starts_with(name));
            assert!(found.is_none(), "{package} depends on {name}");
        }
    }
}

#[test]
fn every_golden_store_is_opened_by_a_test() {
    let tests = fs::read_to_string(root().join("tests/it/golden.rs")).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(root().join("tests/golden")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(tests.contains(&format!("check_golden_store(\"{name}\")")), "golden/{name}");
        count += 1;
    }
    assert!(0 < count);
}

//! Keeps the corpora: `cargo run -p backy-fuzz --example corpus -- list|unpack|pack|tidy`.
//!
//! - `list`: the targets, one on each line; `slow` behind those that take milliseconds for an input.
//! - `unpack DIRECTORY`: makes `DIRECTORY/<target>` for libFuzzer, with a file for each input of the corpus and each seed.
//! - `pack DIRECTORY`: takes the inputs in `DIRECTORY/<target>` into the corpus, in the place of those that were there.
//! - `tidy`: sorts the corpora, and makes those that are missing.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

use backy_fuzz::{TARGETS, Target, corpus};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            for target in TARGETS {
                println!("{}{}", target.name, if target.is_slow() { " slow" } else { "" });
            }
            Ok(())
        }
        ["unpack", directory] => for_all(|target| unpack(target, Path::new(directory))),
        ["pack", directory] => for_all(|target| pack(target, Path::new(directory))),
        ["tidy"] => for_all(tidy),
        _ => Err("usage: corpus list | unpack DIRECTORY | pack DIRECTORY | tidy".into()),
    }
}

fn for_all(work: impl Fn(&Target) -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    TARGETS.iter().try_for_each(|target| {
        work(target).map_err(|error| format!("{}: {error}", target.name).into())
    })
}

fn unpack(target: &Target, directory: &Path) -> Result<(), Box<dyn Error>> {
    let directory = directory.join(target.name);
    fs::create_dir_all(&directory)?;
    for input in corpus::read(&corpus::file(target.name))?.into_iter().chain(target.seeds()) {
        let name = blake3::hash(&input).to_hex();
        fs::write(directory.join(&name[..16]), input)?;
    }
    Ok(())
}

fn pack(target: &Target, directory: &Path) -> Result<(), Box<dyn Error>> {
    let directory = directory.join(target.name);
    if !directory.exists() {
        return Ok(());
    }
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(&directory)? {
        inputs.insert(fs::read(entry?.path())?);
    }
    write(target, &inputs)
}

fn tidy(target: &Target) -> Result<(), Box<dyn Error>> {
    let path = corpus::file(target.name);
    let inputs = if path.exists() { corpus::read(&path)? } else { Vec::new() };
    write(target, &inputs.into_iter().collect())
}

fn write(target: &Target, inputs: &BTreeSet<Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let (text, left_out) = corpus::text(inputs);
    if left_out != 0 {
        eprintln!("{}: no room for {left_out} of {} inputs", target.name, inputs.len());
    }
    fs::create_dir_all(corpus::directory())?;
    fs::write(corpus::file(target.name), text)?;
    Ok(())
}

//! Serves a raw image file, read-only: `raw_file IMAGE SOCKET`, until standard input ends.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use nbd_server::{
    ErrorCode, Export, ExportError, Exports, ListedExport, Listener, NamedExport, OpenError,
    Options, Server,
};
use rustix::io::{ReadWriteFlags, preadv2};

#[derive(Debug)]
struct RawFile {
    file: File,
    size: u64,
}

impl Export for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        let error = |error: std::io::Error| ExportError::new(ErrorCode::Io, error.to_string());
        self.file.read_exact_at(buffer, offset).map_err(error)
    }

    fn read_immediately(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let len = buffer.len();
        let flags = ReadWriteFlags::NOWAIT;
        preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, flags) == Ok(len)
    }
}

#[derive(Debug)]
struct OneFile(Arc<RawFile>);

impl Exports for OneFile {
    fn list(&self) -> Result<Vec<ListedExport>, OpenError> {
        Ok(vec![ListedExport { name: String::new(), description: "raw file".to_owned() }])
    }

    fn open(&self, name: &str) -> Result<NamedExport, OpenError> {
        if !name.is_empty() {
            return Err(OpenError::Unknown);
        }
        Ok(NamedExport { name: String::new(), export: Arc::<RawFile>::clone(&self.0) })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(image), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: raw_file IMAGE SOCKET".into());
    };
    let file = File::open(image)?;
    let size = file.metadata()?.len();
    let listener = Listener::unix(&PathBuf::from(socket))?;
    let exports = Arc::new(OneFile(Arc::new(RawFile { file, size })));
    let server = Server::start(vec![listener], exports, Options::default())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.stop_handle().stop();
    server.wait();
    Ok(())
}

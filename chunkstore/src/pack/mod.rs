//! Packs: many chunks in one immutable file. Byte layout: `docs/format.md`, section "Pack".

mod reader;
mod writer;

pub(crate) use reader::{
    PackContents, read_contents, read_header, read_record, read_record_header,
};
pub(crate) use writer::{
    PACK_LEN_TARGET, PACK_RECORD_COUNT_TARGET, PackWriter, SealedPack, WRITE_BUFFER_LEN,
};

//! The store that each fault meets, and what its revisions restore to.

use std::fs;
use std::path::{Path, PathBuf};

use chunkstore::format::{FooterRecord, ObjectKind, PackFooter, PackHeader};
use chunkstore::id::ChunkId;

use crate::scene::{IMAGE, Output, Scene, files_below, random_bytes};

/// Length of the older image in bytes: a few chunks.
const IMAGE_LEN: usize = 400_001;

/// A scene with two revisions, and their images.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) scene: Scene,
    /// Ids and images, oldest first.
    pub(super) revisions: Vec<(String, Vec<u8>)>,
}

/// A pack in parts.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<FooterRecord>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let scene = Scene::new();
        let mut image = random_bytes(IMAGE_LEN, 1);
        scene.write(IMAGE, &image);
        scene.succeeds(["init", "file", IMAGE]);
        let mut revisions = Vec::new();
        for number in 0..2 {
            image.extend(random_bytes(200_000, 10 + number));
            scene.write(IMAGE, &image);
            scene.succeeds(["backup", &format!("manual:{number}")]);
            revisions.push((scene.ids().pop().unwrap(), image.clone()));
        }
        Self { scene, revisions }
    }

    pub(super) fn id(&self, number: usize) -> String {
        self.revisions[number].0.clone()
    }

    /// Returns the packs of data, largest first: the first of the oldest revision, then what the second added.
    pub(super) fn data_packs(&self) -> Vec<Pack> {
        self.packs(ObjectKind::Data)
    }

    /// Returns the packs whose first record is of this kind, largest first.
    pub(super) fn packs(&self, kind: ObjectKind) -> Vec<Pack> {
        let paths = files_below(&self.scene.backup_path("packs"));
        let mut packs: Vec<_> = paths.into_iter().map(Pack::read).collect();
        packs.retain(|pack| pack.records[0].kind == kind);
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.bytes.len()));
        packs
    }

    /// Returns a path below the source's revisions.
    pub(super) fn record_path(&self, number: usize) -> PathBuf {
        self.scene.backup_path(&format!("revisions/vm1/{}.rev", self.id(number)))
    }

    /// Restores a revision.
    pub(super) fn restore(&self, id: &str) -> (Output, Vec<u8>) {
        let target = self.scene.path("restored");
        fs::remove_file(&target).ok();
        let output = self.scene.run(["restore", "-r", id, "restored"]);
        let bytes = fs::read(&target).unwrap_or_default();
        (output, bytes)
    }
}

impl Pack {
    pub(super) fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).unwrap();
        let len = bytes.len() as u64;
        let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
        let table = PackFooter::table_range(trailer, len).unwrap();
        let start = usize::try_from(table.start).unwrap();
        let footer = PackFooter::decode(&bytes[start..], len).unwrap();
        Self { path, bytes, records: footer.records }
    }

    /// Returns the name: the digest of the file.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Returns where the payload of a record begins.
    pub(super) fn payload_offset(&self, number: usize) -> usize {
        let header = chunkstore::format::RecordHeader::LEN;
        usize::try_from(self.records[number].offset.0).unwrap() + header
    }

    pub(super) fn payload(&self, number: usize) -> &[u8] {
        let start = self.payload_offset(number);
        &self.bytes[start..start + usize::try_from(self.records[number].stored_len).unwrap()]
    }

    pub(super) fn header(&self) -> &[u8] {
        &self.bytes[..PackHeader::LEN]
    }
}

/// Replaces the bytes of a file, whatever its permissions.
pub(super) fn put(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).ok();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Puts bytes among the packs, under the name that they must have, and returns it.
pub(super) fn put_pack(scene: &Scene, bytes: &[u8]) -> ChunkId {
    let id = ObjectKind::Data.chunk_id(bytes);
    let name = id.to_string();
    put(&scene.backup_path(&format!("packs/{}/{name}", &name[..2])), bytes);
    id
}

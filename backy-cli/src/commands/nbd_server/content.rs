//! What is on an image, as far as it takes to say how to mount it: partitions, file systems, unfinished journals.
//!
//! Sources: UEFI specification 2.10, section 5 (GPT and MBR); Linux, Documentation/filesystems/ext4/super.rst;
//! XFS Algorithms and Data Structures, "Superblocks"; btrfs on-disk format, "Superblock". Whatever does not look right is nothing.

use chunkstore::ImageReader;

const SECTOR_LEN: u64 = 512;

/// Partitions that are looked at.
const PARTITION_COUNT_MAX: u32 = 128;

/// A file system that people mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext {
        /// Its journal has to be replayed before it is consistent.
        needs_recovery: bool,
    },
    Xfs,
    Btrfs,
    Ntfs,
    Fat,
    /// A physical volume, not a file system.
    Lvm,
}

impl FileSystem {
    /// Returns the options that mount it from a device that cannot be written; `None` if it is not mounted as it is.
    pub(super) const fn read_only_options(self) -> Option<&'static str> {
        match self {
            Self::Ext { needs_recovery: true } => Some("ro,noload"),
            Self::Ext { needs_recovery: false } | Self::Ntfs | Self::Fat => Some("ro"),
            Self::Xfs => Some("ro,norecovery,nouuid"),
            Self::Btrfs => Some("ro,rescue=nologreplay"),
            Self::Lvm => None,
        }
    }

    /// As [`Self::read_only_options`], from a device that can be written: journals are replayed.
    pub(super) const fn writable_options(self) -> Option<&'static str> {
        match self {
            Self::Xfs => Some("nouuid"),
            Self::Ext { .. } | Self::Btrfs | Self::Ntfs | Self::Fat => Some("rw"),
            Self::Lvm => None,
        }
    }
}

/// Where a file system is: on the whole device, or on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Number as the kernel counts; 0 for the whole device.
    pub(super) partition: u32,
    pub(super) file_system: FileSystem,
}

/// Returns the volumes of an image. What cannot be read is passed over: the image can be served all the same.
pub(super) fn volumes(image: &ImageReader) -> Vec<Volume> {
    let read = |offset: u64, buffer: &mut [u8]| image.read_exact_at(buffer, offset).is_ok();
    volumes_of(&read)
}

/// Reads bytes at an offset, or returns `false`.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> bool + 'a;

fn volumes_of(read: &Read<'_>) -> Vec<Volume> {
    if let Some(file_system) = file_system(read, 0) {
        return vec![Volume { partition: 0, file_system }];
    }
    let partitions = gpt(read).or_else(|| mbr(read)).unwrap_or_default();
    let volume = |(partition, start): (u32, u64)| {
        let file_system = file_system(read, start.checked_mul(SECTOR_LEN)?)?;
        Some(Volume { partition, file_system })
    };
    partitions.into_iter().filter_map(volume).collect()
}

/// Returns the numbers and first sectors of partitions.
fn gpt(read: &Read<'_>) -> Option<Vec<(u32, u64)>> {
    let header: [u8; 92] = bytes(read, SECTOR_LEN)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let table = u64_at(&header, 72)?.checked_mul(SECTOR_LEN)?;
    let (count, entry_len) = (u32_at(&header, 80)?, u32_at(&header, 84)?);
    if !(128..=4096).contains(&entry_len) {
        return None;
    }
    let entry = |number: u32| {
        let offset = table.checked_add(u64::from(number) * u64::from(entry_len))?;
        let entry: [u8; 40] = bytes(read, offset)?;
        let is_used = entry[..16] != [0; 16];
        is_used.then_some((number + 1, u64_at(&entry, 32)?))
    };
    Some((0..count.min(PARTITION_COUNT_MAX)).filter_map(entry).collect())
}

fn mbr(read: &Read<'_>) -> Option<Vec<(u32, u64)>> {
    let sector: [u8; 512] = bytes(read, 0)?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let entry = |number: u32| {
        let start = 446 + 16 * usize::try_from(number).ok()?;
        let entry = &sector[start..start + 16];
        let first = u64::from(u32_at(entry, 8)?);
        (entry[4] != 0 && first != 0).then_some((number + 1, first))
    };
    Some((0..4).filter_map(entry).collect())
}

fn file_system(read: &Read<'_>, start: u64) -> Option<FileSystem> {
    let first: [u8; 2048] = bytes(read, start)?;
    // ext's superblock begins at byte 1024; its magic is at 0x38, what must be understood at 0x60.
    if first[1080..1082] == [0x53, 0xef] {
        let needs_recovery = u32_at(&first, 1024 + 0x60)? & 4 != 0;
        return Some(FileSystem::Ext { needs_recovery });
    }
    if first.starts_with(b"XFSB") {
        return Some(FileSystem::Xfs);
    }
    if &first[3..11] == b"NTFS    " {
        return Some(FileSystem::Ntfs);
    }
    if &first[82..87] == b"FAT32" || &first[54..57] == b"FAT" {
        return Some(FileSystem::Fat);
    }
    if &first[512..520] == b"LABELONE" {
        return Some(FileSystem::Lvm);
    }
    let magic: [u8; 8] = bytes(read, start.checked_add((64 << 10) + 64)?)?;
    (&magic == b"_BHRfS_M").then_some(FileSystem::Btrfs)
}

fn bytes<const LEN: usize>(read: &Read<'_>, offset: u64) -> Option<[u8; LEN]> {
    let mut buffer = [0; LEN];
    read(offset, &mut buffer).then_some(buffer)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(image: &[u8]) -> Vec<Volume> {
        let read = |offset: u64, buffer: &mut [u8]| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let part = start.checked_add(buffer.len()).and_then(|end| image.get(start..end));
            part.is_some_and(|part| {
                buffer.copy_from_slice(part);
                true
            })
        };
        volumes_of(&read)
    }

    fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn file_systems_on_the_whole_device_are_found() {
        for (offset, magic, file_system) in [
            (1080, &[0x53, 0xef][..], FileSystem::Ext { needs_recovery: false }),
            (0, b"XFSB", FileSystem::Xfs),
            (3, b"NTFS    ", FileSystem::Ntfs),
            (82, b"FAT32", FileSystem::Fat),
            (512, b"LABELONE", FileSystem::Lvm),
            (65600, b"_BHRfS_M", FileSystem::Btrfs),
        ] {
            let mut image = vec![0; 1 << 20];
            put(&mut image, offset, magic);
            assert_eq!(found(&image), [Volume { partition: 0, file_system }]);
        }
        assert_eq!(found(&vec![0; 1 << 20]), []);
        assert_eq!(found(&[0x53; 100]), []);
    }

    #[test]
    fn partitions_of_both_kinds_have_the_numbers_of_the_kernel() {
        let mut image = vec![0; 4 << 20];
        put(&mut image, 510, &[0x55, 0xaa]);
        put(&mut image, 446 + 16 + 4, &[0x83]);
        put(&mut image, 446 + 16 + 8, &2048_u32.to_le_bytes());
        put(&mut image, (1 << 20) + 1080, &[0x53, 0xef]);
        put(&mut image, (1 << 20) + 1024 + 0x60, &[4]);
        let dirty = FileSystem::Ext { needs_recovery: true };
        assert_eq!(found(&image), [Volume { partition: 2, file_system: dirty }]);

        put(&mut image, 512, b"EFI PART");
        put(&mut image, 512 + 72, &2_u64.to_le_bytes());
        put(&mut image, 512 + 80, &128_u32.to_le_bytes());
        put(&mut image, 512 + 84, &128_u32.to_le_bytes());
        put(&mut image, 1024 + 2 * 128, &[1; 16]);
        put(&mut image, 1024 + 2 * 128 + 32, &2048_u64.to_le_bytes());
        // In a real GPT these bytes are in the way of nothing: the magic of ext would lie in the table.
        assert_eq!(found(&image), [Volume { partition: 3, file_system: dirty }]);
    }

    #[test]
    fn tables_that_point_nowhere_are_nothing() {
        let mut image = vec![0; 1 << 20];
        put(&mut image, 512, b"EFI PART");
        for (table, count, entry_len) in
            [(u64::MAX, 128, 128), (2, u32::MAX, 128), (2, 128, 0), (u64::MAX / 512, 4, 4096)]
        {
            put(&mut image, 512 + 72, &table.to_le_bytes());
            put(&mut image, 512 + 80, &u32::to_le_bytes(count));
            put(&mut image, 512 + 84, &u32::to_le_bytes(entry_len));
            assert_eq!(found(&image), []);
        }
        let mut image = vec![0xff; 1 << 20];
        put(&mut image, 510, &[0x55, 0xaa]);
        assert_eq!(found(&image), []);
    }
}

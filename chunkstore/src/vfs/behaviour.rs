//! What every [`Vfs`] does, tried on the real and on the simulated one.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::vfs::simulated::SimulatedVfs;
use crate::vfs::{ALIGNMENT, AlignedBuffer, Entry, EntryKind, LockMode, Vfs, VfsFile, read_file};

/// Makes a test for each implementation of each behaviour: a function of a file system and an
/// empty directory in it.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test]
            fn $name() {
                let directory = tempfile::tempdir().unwrap();
                super::$name(&crate::vfs::real::RealVfs::new(), directory.path());
            })*
        }
        mod simulated {
            $(#[test]
            fn $name() {
                let vfs = super::simulated_with_directory();
                super::$name(&vfs, std::path::Path::new("/directory"));
            })*
        }
    };
}

behaviours![
    new_file_is_empty_and_takes_the_name,
    create_new_refuses_a_missing_directory,
    missing_file_is_not_found,
    directory_is_not_a_file,
    file_is_not_a_directory,
    write_reads_back_and_gaps_are_zero,
    bulk_write_reads_back_aligned_or_not,
    read_past_the_end_fails,
    set_len_cuts_and_extends_by_zeros,
    reserved_space_reads_as_zeros_and_keeps_what_lies_beside,
    hole_leaves_what_lies_beside_and_the_length,
    file_opened_for_reading_cannot_be_written,
    open_file_survives_its_name,
    rename_no_replace_refuses_a_taken_name,
    rename_no_replace_moves_to_another_directory,
    rename_of_a_missing_file_is_not_found,
    rename_replace_replaces,
    rename_does_not_replace_a_directory,
    remove_file_removes_files_only,
    create_dir_needs_a_parent_and_a_free_name,
    list_is_sorted_and_tells_kinds,
    sync_succeeds_on_files_and_directories,
    exclusive_lock_excludes_all_others,
    shared_locks_share,
    lock_of_a_missing_file_is_not_found,
    lock_of_an_open_file_ends_with_it,
    lock_of_an_open_file_can_be_converted,
    lock_survives_removal_of_the_name,
    waiting_for_a_lock_ends_when_it_is_free,
    describe_replaces_the_text,
    read_file_refuses_a_long_file,
    free_space_of_a_missing_path_is_not_found,
];

fn simulated_with_directory() -> SimulatedVfs {
    let vfs = SimulatedVfs::new();
    vfs.create_dir(Path::new("/directory")).unwrap();
    vfs
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("the call must fail").kind()
}

fn create(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = vfs.create_new(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn content(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    read_file(vfs, path, 1 << 20).unwrap()
}

fn new_file_is_empty_and_takes_the_name(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = vfs.create_new(&path).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    assert_eq!(vfs.file_len(&path).unwrap(), 0);
    assert_eq!(kind(vfs.create_new(&path)), ErrorKind::AlreadyExists);
}

fn create_new_refuses_a_missing_directory(vfs: &dyn Vfs, root: &Path) {
    assert_eq!(kind(vfs.create_new(&root.join("missing/file"))), ErrorKind::NotFound);
}

fn missing_file_is_not_found(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("missing");
    assert_eq!(kind(vfs.open(&path, false)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.open(&path, true)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.file_len(&path)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.remove_file(&path)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.list(&path)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.sync_dir(&path)), ErrorKind::NotFound);
}

fn directory_is_not_a_file(vfs: &dyn Vfs, root: &Path) {
    assert_eq!(kind(vfs.open(root, false)), ErrorKind::IsADirectory);
    assert_eq!(kind(vfs.open(root, true)), ErrorKind::IsADirectory);
    assert_eq!(kind(vfs.file_len(root)), ErrorKind::IsADirectory);
    assert_eq!(kind(vfs.lock(root, LockMode::Shared, false)), ErrorKind::IsADirectory);
    assert_eq!(kind(vfs.create_new(root)), ErrorKind::AlreadyExists);
}

fn file_is_not_a_directory(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    drop(create(vfs, &path, b"x"));
    assert_eq!(kind(vfs.list(&path)), ErrorKind::NotADirectory);
    assert_eq!(kind(vfs.sync_dir(&path)), ErrorKind::NotADirectory);
    assert_eq!(kind(vfs.open(&path.join("below"), false)), ErrorKind::NotADirectory);
    assert_eq!(kind(vfs.create_dir(&path.join("below"))), ErrorKind::NotADirectory);
}

fn write_reads_back_and_gaps_are_zero(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = create(vfs, &path, b"abc");
    file.write_all_at(b"xyz", 5).unwrap();
    file.write_all_at(b"B", 1).unwrap();
    file.write_all_at(b"", 100).unwrap();
    assert_eq!(content(vfs, &path), b"aBc\0\0xyz");
    let mut middle = [0; 3];
    vfs.open(&path, false).unwrap().read_exact_at(&mut middle, 4).unwrap();
    assert_eq!(&middle, b"\0xy");
}

fn bulk_write_reads_back_aligned_or_not(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = vfs.create_new(&path).unwrap();
    let mut expected = Vec::new();
    // Whole blocks, then blocks and a part of one, then what begins within a block.
    for (byte, len) in [(1, 2 * ALIGNMENT), (2, ALIGNMENT + 100), (3, 3 * ALIGNMENT), (4, 7)] {
        let mut buffer = AlignedBuffer::new(len);
        assert!(buffer.fill(&vec![byte; len]).is_empty());
        file.write_bulk_at(buffer.as_slice(), expected.len() as u64).unwrap();
        expected.extend_from_slice(buffer.as_slice());
        assert!(content(vfs, &path) == expected, "{len} bytes");
    }
    // What was written and read before is replaced, also for who has it open.
    let mut buffer = AlignedBuffer::new(ALIGNMENT);
    assert!(buffer.fill(&[5; ALIGNMENT]).is_empty());
    file.write_bulk_at(buffer.as_slice(), ALIGNMENT as u64).unwrap();
    expected[ALIGNMENT..2 * ALIGNMENT].fill(5);
    file.sync_data().unwrap();
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found == expected && content(vfs, &path) == expected);
}

fn read_past_the_end_fails(vfs: &dyn Vfs, root: &Path) {
    let file = create(vfs, &root.join("file"), b"abc");
    assert_eq!(kind(file.read_exact_at(&mut [0; 3], 1)), ErrorKind::UnexpectedEof);
    assert_eq!(kind(file.read_exact_at(&mut [0; 1], 1 << 40)), ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut [], 3).unwrap();
}

fn set_len_cuts_and_extends_by_zeros(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = create(vfs, &path, b"abcdef");
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    assert_eq!(content(vfs, &path), b"ab\0\0");
}

fn reserved_space_reads_as_zeros_and_keeps_what_lies_beside(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = create(vfs, &path, b"abc");
    file.reserve(8, 4).unwrap();
    assert_eq!(content(vfs, &path), b"abc\0\0\0\0\0\0\0\0\0");
    file.write_all_at(b"xyz", 9).unwrap();
    file.reserve(3, 2).unwrap();
    assert_eq!(content(vfs, &path), b"abc\0\0\0\0\0\0xyz");
    file.reserve(5, 0).unwrap();
}

fn hole_leaves_what_lies_beside_and_the_length(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = create(vfs, &path, &[7; 3 * ALIGNMENT]);
    file.punch_hole(ALIGNMENT as u64, ALIGNMENT as u64).unwrap();
    file.punch_hole(ALIGNMENT as u64, 0).unwrap();
    file.punch_hole(1 << 30, 5).unwrap();
    let content = content(vfs, &path);
    assert_eq!(content.len(), 3 * ALIGNMENT);
    assert!(content[..ALIGNMENT].iter().chain(&content[2 * ALIGNMENT..]).all(|byte| *byte == 7));
}

fn file_opened_for_reading_cannot_be_written(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    drop(create(vfs, &path, b"abc"));
    let file = vfs.open(&path, false).unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    let mut buffer = AlignedBuffer::new(ALIGNMENT);
    assert!(buffer.fill(&[1; ALIGNMENT]).is_empty());
    assert!(file.write_bulk_at(buffer.as_slice(), 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.reserve(0, 10).is_err());
    assert!(file.punch_hole(0, 2).is_err());
    assert_eq!(content(vfs, &path), b"abc");
}

fn open_file_survives_its_name(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    let file = create(vfs, &path, b"abc");
    vfs.remove_file(&path).unwrap();
    file.write_all_at(b"d", 3).unwrap();
    file.sync_data().unwrap();
    drop(create(vfs, &path, b"other"));
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"abcd");
}

fn rename_no_replace_refuses_a_taken_name(vfs: &dyn Vfs, root: &Path) {
    let [from, to] = ["from", "to"].map(|name| root.join(name));
    drop((create(vfs, &from, b"new"), create(vfs, &to, b"old")));
    assert_eq!(kind(vfs.rename_no_replace(&from, &to)), ErrorKind::AlreadyExists);
    assert_eq!(kind(vfs.rename_no_replace(&from, &from)), ErrorKind::AlreadyExists);
    assert_eq!((content(vfs, &from), content(vfs, &to)), (b"new".to_vec(), b"old".to_vec()));
}

fn rename_no_replace_moves_to_another_directory(vfs: &dyn Vfs, root: &Path) {
    let [from, to] = ["from", "below/to"].map(|name| root.join(name));
    drop(create(vfs, &from, b"abc"));
    assert_eq!(kind(vfs.rename_no_replace(&from, &to)), ErrorKind::NotFound);
    vfs.create_dir(&root.join("below")).unwrap();
    vfs.rename_no_replace(&from, &to).unwrap();
    assert_eq!(content(vfs, &to), b"abc");
    assert_eq!(kind(vfs.file_len(&from)), ErrorKind::NotFound);
}

fn rename_of_a_missing_file_is_not_found(vfs: &dyn Vfs, root: &Path) {
    let [from, to] = ["from", "to"].map(|name| root.join(name));
    assert_eq!(kind(vfs.rename_no_replace(&from, &to)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.rename_replace(&from, &to)), ErrorKind::NotFound);
}

fn rename_replace_replaces(vfs: &dyn Vfs, root: &Path) {
    let [from, to] = ["from", "to"].map(|name| root.join(name));
    drop((create(vfs, &from, b"new"), create(vfs, &to, b"old")));
    let old = vfs.open(&to, false).unwrap();
    vfs.rename_replace(&from, &to).unwrap();
    vfs.rename_replace(&to, &to).unwrap();
    assert_eq!(content(vfs, &to), b"new");
    assert_eq!(vfs.list(root).unwrap().len(), 1);
    let mut bytes = [0; 3];
    old.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"old");
}

fn rename_does_not_replace_a_directory(vfs: &dyn Vfs, root: &Path) {
    let [from, to] = ["from", "to"].map(|name| root.join(name));
    drop(create(vfs, &from, b"new"));
    vfs.create_dir(&to).unwrap();
    assert_eq!(kind(vfs.rename_replace(&from, &to)), ErrorKind::IsADirectory);
    assert_eq!(kind(vfs.rename_no_replace(&from, &to)), ErrorKind::AlreadyExists);
}

fn remove_file_removes_files_only(vfs: &dyn Vfs, root: &Path) {
    let [file, directory] = ["file", "directory"].map(|name| root.join(name));
    drop(create(vfs, &file, b"x"));
    vfs.create_dir(&directory).unwrap();
    vfs.remove_file(&file).unwrap();
    assert_eq!(kind(vfs.file_len(&file)), ErrorKind::NotFound);
    assert_eq!(kind(vfs.remove_file(&directory)), ErrorKind::IsADirectory);
}

fn create_dir_needs_a_parent_and_a_free_name(vfs: &dyn Vfs, root: &Path) {
    assert_eq!(kind(vfs.create_dir(&root.join("a/b"))), ErrorKind::NotFound);
    vfs.create_dir(&root.join("a")).unwrap();
    vfs.create_dir(&root.join("a/b")).unwrap();
    assert_eq!(kind(vfs.create_dir(&root.join("a/b"))), ErrorKind::AlreadyExists);
    drop(create(vfs, &root.join("file"), b"x"));
    assert_eq!(kind(vfs.create_dir(&root.join("file"))), ErrorKind::AlreadyExists);
}

fn list_is_sorted_and_tells_kinds(vfs: &dyn Vfs, root: &Path) {
    for name in ["c", "a", "B"] {
        drop(vfs.create_new(&root.join(name)).unwrap());
    }
    vfs.create_dir(&root.join("b")).unwrap();
    drop(vfs.create_new(&root.join("b/below")).unwrap());
    let entry = |name: &str, kind| Entry { name: name.to_owned(), kind };
    let (file, directory) = (EntryKind::File, EntryKind::Directory);
    let expected = [entry("B", file), entry("a", file), entry("b", directory), entry("c", file)];
    assert_eq!(vfs.list(root).unwrap(), expected);
}

fn sync_succeeds_on_files_and_directories(vfs: &dyn Vfs, root: &Path) {
    let file = create(vfs, &root.join("file"), b"abc");
    file.sync_data().unwrap();
    vfs.sync_dir(root).unwrap();
    vfs.open(&root.join("file"), false).unwrap().sync_data().unwrap();
}

fn exclusive_lock_excludes_all_others(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    drop(create(vfs, &path, b""));
    let lock = vfs.lock(&path, LockMode::Exclusive, false).unwrap().expect("free");
    assert!(vfs.lock(&path, LockMode::Exclusive, false).unwrap().is_none());
    assert!(vfs.lock(&path, LockMode::Shared, false).unwrap().is_none());
    drop(lock);
    assert!(vfs.lock(&path, LockMode::Exclusive, true).unwrap().is_some());
}

fn shared_locks_share(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    drop(create(vfs, &path, b""));
    let first = vfs.lock(&path, LockMode::Shared, false).unwrap().expect("free");
    let second = vfs.lock(&path, LockMode::Shared, true).unwrap().expect("shared");
    drop(first);
    assert!(vfs.lock(&path, LockMode::Exclusive, false).unwrap().is_none());
    drop(second);
    assert!(vfs.lock(&path, LockMode::Exclusive, false).unwrap().is_some());
}

fn lock_of_a_missing_file_is_not_found(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    assert_eq!(kind(vfs.lock(&path, LockMode::Shared, false)), ErrorKind::NotFound);
}

fn lock_of_an_open_file_ends_with_it(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    let file = create(vfs, &path, b"");
    assert!(file.try_lock(LockMode::Exclusive).unwrap());
    assert!(file.try_lock(LockMode::Exclusive).unwrap());
    assert!(!vfs.open(&path, true).unwrap().try_lock(LockMode::Shared).unwrap());
    assert!(vfs.lock(&path, LockMode::Shared, false).unwrap().is_none());
    drop(file);
    assert!(vfs.lock(&path, LockMode::Exclusive, false).unwrap().is_some());
}

fn lock_of_an_open_file_can_be_converted(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    let first = create(vfs, &path, b"");
    let second = vfs.open(&path, false).unwrap();
    assert!(first.try_lock(LockMode::Exclusive).unwrap());
    assert!(first.try_lock(LockMode::Shared).unwrap());
    assert!(second.try_lock(LockMode::Shared).unwrap());
    assert!(!first.try_lock(LockMode::Exclusive).unwrap());
    // The failed conversion lost the first one's lock.
    assert!(second.try_lock(LockMode::Exclusive).unwrap());
}

fn lock_survives_removal_of_the_name(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    drop(create(vfs, &path, b""));
    let lock = vfs.lock(&path, LockMode::Exclusive, false).unwrap().expect("free");
    vfs.remove_file(&path).unwrap();
    drop(create(vfs, &path, b""));
    let other = vfs.lock(&path, LockMode::Exclusive, false).unwrap().expect("another file");
    drop((lock, other));
}

fn waiting_for_a_lock_ends_when_it_is_free(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    drop(create(vfs, &path, b""));
    let lock = vfs.lock(&path, LockMode::Exclusive, false).unwrap().expect("free");
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let lock = vfs.lock(&path, LockMode::Shared, true).unwrap();
            sender.send(lock.is_some()).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        drop(lock);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
    });
}

fn describe_replaces_the_text(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("lock");
    drop(create(vfs, &path, b"a longer text than the next"));
    let lock = vfs.lock(&path, LockMode::Shared, false).unwrap().expect("free");
    lock.describe("pid 1").unwrap();
    assert_eq!(content(vfs, &path), b"pid 1");
}

fn read_file_refuses_a_long_file(vfs: &dyn Vfs, root: &Path) {
    let path = root.join("file");
    drop(create(vfs, &path, b"abc"));
    assert_eq!(kind(read_file(vfs, &path, 2)), ErrorKind::FileTooLarge);
    assert_eq!(read_file(vfs, &path, 3).unwrap(), b"abc");
}

fn free_space_of_a_missing_path_is_not_found(vfs: &dyn Vfs, root: &Path) {
    vfs.free_space(root).unwrap();
    assert_eq!(kind(vfs.free_space(&root.join("missing"))), ErrorKind::NotFound);
}

#![expect(clippy::indexing_slicing, reason = "tests index their own bytes")]

use super::*;
use crate::format::test_support::{assert_exact_length, assert_flips_noticed, assert_magic};
use crate::id::ChunkId;

fn data(len: u32) -> PageEntry {
    PageEntry::Data { len, id: ChunkId::from_bytes([5; 32]) }
}

fn entry(path: &str, content: Vec<PageEntry>) -> TreeEntry {
    TreeEntry {
        path: TreePath::new(path.as_bytes()).unwrap(),
        metadata: FileMetadata {
            mode: 0o644,
            user: 1,
            group: 2,
            inode: 3,
            modified_nanoseconds: -4,
            changed_nanoseconds: 5,
        },
        since: Timestamp(6),
        is_carried: false,
        is_unsettled: true,
        content,
    }
}

fn example() -> TreePage {
    let second = vec![data(10), PageEntry::Zero { len: 5 }, data(1)];
    TreePage { entries: vec![entry("a/b.wsp", Vec::new()), entry("a/c.wsp", second)] }
}

#[test]
fn magic_is_the_digest_of_its_sentence() {
    assert_magic(&MAGIC, "chunkstore tree page v1");
}

#[test]
fn page_reads_back() {
    let encoded = example().encode();
    assert_eq!(TreePage::decode(&encoded), Ok(example()));
    let entries: usize = example().entries.iter().map(TreeEntry::encoded_len).sum();
    assert_eq!(encoded.len(), TreePage::HEADER_LEN + entries);
    assert_eq!(example().content_len(), 16);
}

#[test]
fn changed_page_is_noticed() {
    assert_flips_noticed(&example().encode(), TreePage::decode);
    assert_exact_length(&example().encode(), TreePage::decode);
}

#[test]
fn paths_must_be_in_order_and_appear_once() {
    let page = |first: &str, second: &str| {
        let entries = [entry(first, Vec::new()), entry(second, Vec::new())];
        let mut out = [&MAGIC[..], &[1, 0, 0, 0], &[0; 8], &[2, 0, 0, 0]].concat();
        entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    };
    assert!(TreePage::decode(&page("a", "b")).is_ok());
    assert!(TreePage::decode(&page("b", "a")).is_err());
    assert!(TreePage::decode(&page("a", "a")).is_err());
}

#[test]
fn content_must_be_as_long_as_the_file() {
    let raw = |len: u64, content: &[PageEntry]| {
        let mut file = Vec::new();
        entry("a", content.to_vec()).encode(&mut file);
        let place = file.len() - content.iter().map(PageEntry::encoded_len).sum::<usize>() - 12;
        file[place..place + 8].copy_from_slice(&len.to_le_bytes());
        let head = [&MAGIC[..], &[1, 0, 0, 0], &len.to_le_bytes(), &[1, 0, 0, 0]].concat();
        [head, file].concat()
    };
    let zero = PageEntry::Zero { len: 5 };
    assert!(TreePage::decode(&raw(15, &[data(10), zero])).is_ok());
    assert!(TreePage::decode(&raw(14, &[data(10), zero])).is_err());
    assert!(TreePage::decode(&raw(16, &[data(10), zero])).is_err());
    assert!(TreePage::decode(&raw(10, &[zero, zero])).is_err());
    assert!(TreePage::decode(&raw(u64::MAX, &[])).is_err());
}

#[test]
fn huge_counts_take_no_memory() {
    let mut page = example().encode();
    page[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(TreePage::decode(&page).is_err());
    let mut page = TreePage { entries: vec![entry("a", Vec::new())] }.encode();
    let place = page.len() - 4;
    page[place..].copy_from_slice(&u32::MAX.to_le_bytes());
    let result = TreePage::decode(&page);
    assert!(matches!(result, Err(FormatError::Truncated { .. })), "{result:?}");
}

#[test]
fn kind_flags_and_mode_are_checked_at_their_limits() {
    let page = TreePage { entries: vec![entry("a", Vec::new())] };
    let encoded = page.encode();
    let kind = HEADER_LEN + 3;
    for (place, value, accepted) in [
        (kind, 0, false),
        (kind, 1, true),
        (kind, 2, false),
        (kind + 1, 0, true),
        (kind + 1, 3, true),
        (kind + 1, 4, false),
        (kind + 3, 0x0f, true),
        (kind + 3, 0x10, false),
    ] {
        let mut changed = encoded.clone();
        changed[place] = value;
        assert_eq!(TreePage::decode(&changed).is_ok(), accepted, "{value} at {place}");
    }
}

/// Puts entries into pages.
fn pages(entries: Vec<TreeEntry>) -> Vec<TreePage> {
    let (mut pages, mut complete) = (TreePages::default(), Vec::new());
    for entry in entries {
        pages.push(entry, &mut complete).unwrap();
    }
    complete.extend(pages.finish());
    complete
}

fn many() -> Vec<TreeEntry> {
    (0..20_000).map(|number| entry(&format!("metric-{number:06}"), vec![data(1); 8])).collect()
}

#[test]
fn pages_have_about_64_kib_and_all_entries_in_order() {
    let pages = pages(many());
    let found: Vec<TreeEntry> = pages.iter().flat_map(|page| page.entries.clone()).collect();
    assert!(found == many());
    let average = pages.iter().map(|page| page.encode().len()).sum::<usize>() / pages.len();
    assert!((40 << 10..100 << 10).contains(&average), "{average}");
}

#[test]
fn change_of_one_entry_changes_one_page() {
    let before = pages(many());
    let mut entries = many();
    entries[7000].content[3] = data(2);
    let changed = pages(entries.clone());
    assert_eq!(before.iter().filter(|page| !changed.contains(page)).count(), 1);
    entries.remove(7001);
    entries.insert(100, entry("metric-000099a", Vec::new()));
    let changed = pages(entries);
    assert!(before.iter().filter(|page| !changed.contains(page)).count() <= 4);
}

#[test]
fn longest_page_is_not_exceeded() {
    let longest = (TREE_PAGE_LEN_MAX - HEADER_LEN - ENTRY_LEN - 1) / 37;
    let fits = entry("b", vec![data(1); longest]);
    let complete = pages(vec![entry("a", Vec::new()), fits.clone(), entry("c", Vec::new())]);
    assert!(complete.iter().all(|page| page.encode().len() <= TREE_PAGE_LEN_MAX));
    assert_eq!(complete.iter().map(|page| page.entries.len()).sum::<usize>(), 3);
    let longest_page = TreePage { entries: vec![fits] }.encode();
    assert!(TreePage::decode(&longest_page).is_ok());
    let one_more = entry("b", vec![data(1); longest + 1]);
    assert!(TreePage::decode(&TreePage { entries: vec![one_more] }.encode()).is_err());
    let mut pages = TreePages::default();
    let too_long = entry("d", vec![data(1); longest + 1]);
    assert!(pages.push(too_long, &mut Vec::new()).is_err());
}

use super::*;
use crate::format::Page;
use crate::id::StoreId;

fn data(len: u32, number: u8) -> PageEntry {
    PageEntry::Data { len, id: ChunkId::from_bytes([number; 32]) }
}

fn page() -> SpanPage {
    let entries = vec![data(100, 1), PageEntry::Zero { len: 50 }, data(1, 2), data(200, 1)];
    SpanPage::new(&Page { entries })
}

#[test]
fn pieces_of_any_part_cover_it_in_order() {
    let page = page();
    assert_eq!(page.len(), 351);
    for start in 0..=351 {
        for end in start..=351 {
            let mut position = start;
            for piece in page.pieces(start..end) {
                let expected =
                    [(0..100, Some(1)), (100..150, None), (150..151, Some(2)), (151..351, Some(1))]
                        [piece.index]
                        .clone();
                let number = piece.chunk.map(|id| id.as_bytes()[0]);
                assert_eq!((piece.entry.clone(), number), expected);
                assert_eq!(piece.part.start, position);
                assert!(piece.part.start < piece.part.end && piece.part.end <= end);
                assert!(piece.entry.start <= piece.part.start && piece.part.end <= piece.entry.end);
                position = piece.part.end;
            }
            assert_eq!(position, end);
        }
    }
}

#[test]
fn page_counts_what_it_takes_once_all_is_looked_up() {
    let entries: Vec<PageEntry> = (0..1000).map(|_| data(65_536, 1)).collect();
    let page = SpanPage::new(&Page { entries });
    assert!((60 * 1000..65 * 1000).contains(&page.byte_len()), "{}", page.byte_len());
}

#[test]
fn cache_of_one_store_is_refused_for_another() {
    let cache = ChunkCache::new(1000);
    assert_eq!((cache.byte_len_max(), cache.byte_len()), (1000, 0));
    let [one, other] = [1, 2].map(|byte| StoreId::from_bytes([byte; StoreId::LEN]));
    assert!(cache.belong_to(&one).is_ok());
    assert!(cache.belong_to(&one).is_ok());
    assert!(matches!(cache.belong_to(&other), Err(Error::InvalidOption { .. })));
}

//! `diff`: ranges of two revisions, as text and as a document.

use crate::scene::{IMAGE, IMAGE_LEN, Scene, rewrite};

/// Returns a scene with two revisions that differ in some bytes at 1 MiB.
fn changed_in_one_place() -> Scene {
    let (scene, _) = Scene::with_backup();
    rewrite(&scene.path(IMAGE), |bytes| bytes[2 << 20..][..10].fill(7));
    scene.succeeds(["backup"]);
    scene
}

#[test]
fn ranges_are_printed_with_their_sum() {
    let scene = changed_in_one_place();
    let text = scene.succeeds(["diff", "-r", "1", "-r", "0"]).text().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(" bytes at byte "), "{text}");
    assert!(lines[1].ends_with(" in 1 range of 3.0 MiB"), "{text}");
    let same = scene.succeeds(["diff", "-r", "0", "-r", "0"]);
    assert_eq!(same.text(), "0 B in 0 ranges of 3.0 MiB\n");
}

#[test]
fn document_has_ranges_and_sizes() {
    let scene = changed_in_one_place();
    let ids = scene.ids();
    for arguments in
        [&["diff", "--json", "-r", "1", "-r", "0"][..], &["diff", "--json", "-r", "all"]]
    {
        let diff = scene.succeeds(arguments).json();
        assert_eq!(
            (&diff["old"]["id"], &diff["new"]["id"]),
            (&ids[0].as_str().into(), &ids[1].as_str().into())
        );
        assert_eq!(diff["old"]["size"], IMAGE_LEN);
        assert_eq!((&diff["range_count"], &diff["complete"]), (&1.into(), &true.into()));
        let range = &diff["ranges"][0];
        let (offset, len) = (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
        assert!((offset..offset + len).contains(&(2 << 20)), "{diff}");
        assert_eq!(diff["changed_bytes"], len);
    }
    let same = scene.succeeds(["diff", "--json", "-r", "0", "-r", "0"]).json();
    assert_eq!(same["ranges"], serde_json::json!([]));
}

#[test]
fn other_than_two_revisions_are_a_usage_error() {
    let scene = changed_in_one_place();
    scene.fails(2, ["diff", "-r", "0"]);
    scene.fails(2, ["diff", "-r", "0", "-r", "0", "-r", "1"]);
    scene.fails(2, ["diff"]);
    scene.fails(10, ["diff", "-r", "0", "-r", "9"]);
}

#[test]
fn damaged_page_is_named_and_the_document_says_that_it_is_incomplete() {
    let scene = changed_in_one_place();
    for path in crate::scene::files_below(&scene.backup_path("packs")) {
        if path.metadata().unwrap().len() < 10_000 {
            // In the first record, which is a page; the root is behind it.
            rewrite(&path, |bytes| bytes[200] ^= 1);
        }
    }
    let output = scene.fails(4, ["diff", "-r", "1", "-r", "0"]);
    assert!(output.stderr.contains("error: chunk "), "{}", output.stderr);
    let output = scene.run(["--json", "diff", "-r", "1", "-r", "0"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert_eq!(output.json()["complete"], false);
}

//! `kill -9` while the history is edited, expired or repaired: each revision is as before or as decided.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::compare::write_random_image;
use super::kill::{Ledger, assert_tidy};
use super::killer::Killer;
use super::machine::figure;
use crate::scene::{IMAGE, Scene};

/// Revisions that the schedule keeps.
const KEPT: usize = 2;

/// Exit code of a repair that moved something aside.
const DAMAGE: i32 = 4;

fn backup(scene: &Scene, ledger: &mut Ledger, seed: u64, tags: &str) -> String {
    write_random_image(&scene.path(IMAGE), 1, seed);
    let made = scene.succeeds(["--json", "backup", "-f", tags]).json();
    ledger.note(scene);
    made["id"].as_str().unwrap().to_owned()
}

/// Returns the tags of all revisions, oldest revision first.
fn tags_by_id(scene: &Scene) -> Vec<(String, String)> {
    scene.ids().into_iter().zip(scene.tags("all")).collect()
}

#[test]
fn killed_expiries_remove_nothing_that_the_schedule_keeps() {
    let scene = Scene::with_init();
    let config = scene.path("vm1/config");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.split("schedule:").next().unwrap();
    let schedule = format!("{text}\nschedule:\n  fast: {{interval: 1s, keep: {KEPT}}}\n");
    fs::write(&config, schedule).unwrap();
    let (mut killer, mut ledger) = (Killer::new(10), Ledger::default());
    let mut with_manual_tags = BTreeSet::new();
    while let Some(round) = killer.next_round() {
        for number in 0..3 {
            let seed = killer.random();
            let tags = if number == 1 { "fast,manual:kept" } else { "fast" };
            let id = backup(&scene, &mut ledger, seed, tags);
            if number == 1 {
                with_manual_tags.insert(id);
            }
        }
        let before = tags_by_id(&scene);
        killer.kill(&scene, &["expire", "--force"]);
        let newest = before.iter().rev().take(KEPT);
        let newest: BTreeSet<&str> = newest.map(|(id, _)| id.as_str()).collect();
        let after: BTreeMap<String, String> = tags_by_id(&scene).into_iter().collect();
        for (id, tags) in &before {
            let found = after.get(id).map(String::as_str);
            let may_lose = if with_manual_tags.contains(id) { Some("manual:kept") } else { None };
            let may_lose =
                if newest.contains(id.as_str()) { Some(tags.as_str()) } else { may_lose };
            assert!(found == Some(tags) || found == may_lose, "{id}: {tags}, now {found:?}");
            if found.is_none() {
                ledger.images.remove(id);
            }
        }
        ledger.assert_intact(&scene);
        if round % 3 == 0 {
            scene.succeeds(["expire", "--force"]);
            let left: BTreeSet<String> = scene.ids().into_iter().collect();
            assert!(newest.iter().all(|id| left.contains(*id)));
            // Those with manual tags would be ever more in a long run.
            for id in with_manual_tags.iter().filter(|id| !newest.contains(id.as_str())) {
                scene.succeeds(["forget", "-r", id]);
            }
            with_manual_tags.retain(|id| newest.contains(id.as_str()));
            let left: BTreeSet<String> = scene.ids().into_iter().collect();
            ledger.images.retain(|id, _| left.contains(id));
        }
    }
    ledger.assert_intact(&scene);
    assert_tidy(&scene);
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn killed_edits_of_the_history_leave_the_old_state_or_the_new_one() {
    let scene = Scene::with_init();
    let (mut killer, mut ledger) = (Killer::new(16), Ledger::default());
    let mut counts = [0; 2];
    while let Some(round) = killer.next_round() {
        while scene.revision_count() < 4 {
            let seed = killer.random();
            backup(&scene, &mut ledger, seed, "manual:first");
        }
        let before: BTreeMap<String, String> = tags_by_id(&scene).into_iter().collect();
        let (oldest, new) = (scene.ids().remove(0), format!("manual:{round}"));
        match round % 3 {
            0 => killer.kill(&scene, &["forget", "-r", &oldest]),
            1 => killer.kill(&scene, &["tags", "set", "-r", "all", &new]),
            _ => killer.kill(&scene, &["tags", "set", "-r", "0", &new]),
        }
        let after: BTreeMap<String, String> = tags_by_id(&scene).into_iter().collect();
        for (id, tags) in &before {
            let Some(found) = after.get(id) else {
                assert!(round % 3 == 0 && *id == oldest, "{id} is gone");
                ledger.images.remove(id);
                counts[1] += 1;
                continue;
            };
            let is_edited = round % 3 != 0 && *found == new;
            assert!(found == tags || is_edited, "{id}: {tags}, now {found}");
            counts[usize::from(is_edited)] += 1;
        }
        ledger.assert_intact(&scene);
    }
    figure(&format!("{} revisions as before, {} as after", counts[0], counts[1]));
    assert_tidy(&scene);
    scene.succeeds(["verify", "-r", "all"]);
}

/// Breaks what a repair makes anew or moves aside, and nothing else.
fn break_what_is_no_data(scene: &Scene, round: u32) {
    let index = scene.backup_path("index.redb");
    if round.is_multiple_of(2) {
        fs::remove_file(&index).ok();
    } else {
        fs::write(&index, "this is no index").unwrap();
    }
    // A record that nobody can read, of a revision that nobody was promised.
    fs::write(scene.backup_path(&format!("revisions/vm1/{round:032x}.rev")), "torn").unwrap();
}

/// Repairs, which finds nothing to do the second time.
#[track_caller]
fn assert_is_repaired(scene: &Scene, ids: &[String]) {
    let code = scene.run(["repair"]).code;
    assert!(matches!(code, Some(0 | DAMAGE)), "{code:?}");
    scene.succeeds(["repair"]);
    assert_eq!(scene.ids(), ids);
}

#[test]
fn killed_repairs_lose_nothing_and_the_next_one_does_the_rest() {
    let (scene, images) = Scene::with_backups(3);
    let ids = scene.ids();
    let mut killer = Killer::new(10);
    while let Some(round) = killer.next_round() {
        break_what_is_no_data(&scene, round);
        killer.kill_or_ends_with(&scene, &["repair"], &[0, DAMAGE]);
        for (id, image) in ids.iter().zip(&images) {
            let found = scene.succeeds(["restore", "-r", id, "-"]).stdout;
            assert!(found == *image, "revision {id}");
        }
        if round % 3 == 0 {
            assert_is_repaired(&scene, &ids);
            scene.succeeds(["verify", "-r", "all"]);
            remove_files(&scene.backup_path("quarantine"));
        }
    }
    assert_is_repaired(&scene, &ids);
    scene.succeeds(["backup"]);
    assert_tidy(&scene);
    scene.succeeds(["verify", "-r", "all"]);
}

/// Forgets what was moved aside, which would be ever more in a long run.
fn remove_files(directory: &Path) {
    for path in crate::scene::files_below(directory) {
        fs::remove_file(path).unwrap();
    }
}

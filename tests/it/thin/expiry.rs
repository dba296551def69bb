//! Expiry that thins what its schedule drops.

use std::num::NonZero;

use chunkstore::ops::expire::{self, ExpireError, ExpireOptions, ExpireStats};
use chunkstore::ops::thin::ThinOptions;
use chunkstore::ops::{self};
use chunkstore::retention::{Refusal, Schedule, TagRule};
use support::simulated_store::backup;

use super::scene::{DAY, SOURCE, Scene, keep};

fn options(keep_daily: u64, thin: Option<ThinOptions>) -> ExpireOptions {
    let rule = TagRule::count("1d".parse().unwrap(), NonZero::new(keep_daily).unwrap());
    let schedule = Schedule::default().with_tag("daily", rule).unwrap();
    ExpireOptions { schedule, thin, ..ExpireOptions::default() }
}

fn expire(scene: &Scene, options: &ExpireOptions) -> Result<ExpireStats, ExpireError> {
    expire::plan(&scene.store, &Scene::source(), options)?.execute()
}

/// Ten days, each with a content of one file of its own.
fn ten_days() -> Scene {
    let mut scene = Scene::new();
    for seed in 1..11 {
        scene.write(&[("busy", seed), (&format!("new {seed}"), 100 + seed)]);
        scene.back_up_with(&["daily"]);
    }
    scene
}

#[test]
fn revisions_that_the_schedule_drops_keep_the_versions_that_are_wanted() {
    let scene = ten_days();
    let plan = expire::plan(&scene.store, &Scene::source(), &options(3, Some(keep(5)))).unwrap();
    // Seven of ten is more than half, but no revision is removed for that.
    assert_eq!(plan.verdict().removed().count(), 7);
    assert_eq!(plan.verdict().refusals, []);
    let expected = *plan.thinning().unwrap().expected();
    let stats = plan.execute().unwrap();
    let thinned = stats.thinned.unwrap();
    assert_eq!(thinned.counts, expected);
    assert_eq!(stats.removed, thinned.removed);
    // The newest three are complete; two more have a content of "busy" each.
    let revisions = scene.revisions();
    let tags: Vec<_> = revisions.iter().map(|it| it.state.tags.len()).collect();
    assert_eq!(tags, [0, 0, 1, 1, 1]);
    let contents = scene.contents();
    assert_eq!(contents[0], [("busy".to_owned(), 6)]);
    assert_eq!(contents[1], [("busy".to_owned(), 7)]);
    assert_eq!(contents[2].len(), 9);
    // Again, and the next day.
    let again = expire(&scene, &options(3, Some(keep(5)))).unwrap();
    assert_eq!(again.thinned.unwrap().counts.dropped_entries, 0);
    let mut scene = scene;
    scene.write(&[("busy", 11)]);
    scene.back_up_with(&["daily"]);
    expire(&scene, &options(3, Some(keep(5)))).unwrap();
    let busy: Vec<u64> = scene.contents().iter().map(|files| files[0].1).collect();
    assert_eq!(busy, [7, 8, 9, 10, 11]);
}

#[test]
fn without_thinning_the_safeguards_are_as_ever() {
    let scene = ten_days();
    let result = expire(&scene, &options(3, None));
    let Err(ExpireError::Refused { refusals, .. }) = result else { panic!("{result:?}") };
    assert!(matches!(refusals[..], [Refusal::MoreThanHalf { removed: 7, total: 10 }]));
    // Thinned revisions are not thrown away unasked either.
    expire(&scene, &options(3, Some(keep(9)))).unwrap();
    assert_eq!(scene.revisions().len(), 9);
    let result = expire(&scene, &options(3, None));
    assert!(matches!(result, Err(ExpireError::Refused { .. })), "{result:?}");
}

#[test]
fn newest_revision_stays_whole_when_all_tags_go() {
    let scene = ten_days();
    scene.clock.advance(DAY * 2);
    let none = ExpireOptions {
        schedule: Schedule::default(),
        thin: Some(keep(1)),
        ..ExpireOptions::default()
    };
    expire(&scene, &none).unwrap();
    assert_eq!(scene.contents().len(), 1);
    assert_eq!(scene.contents()[0].len(), 11);
}

#[test]
fn expiry_goes_on_succeeding_when_backups_have_stopped() {
    let scene = ten_days();
    let options = options(3, Some(keep(5)));
    expire(&scene, &options).unwrap();
    let before = scene.revisions();
    scene.clock.advance(DAY * 400);
    // Nothing but thinned revisions is dropped, and of these nothing.
    let kept = ExpireOptions {
        schedule: options.schedule.clone().with_tag("daily", rule_of_years()).unwrap(),
        ..options
    };
    expire(&scene, &kept).unwrap();
    assert_eq!(scene.revisions(), before);
}

fn rule_of_years() -> TagRule {
    TagRule::count("52w".parse().unwrap(), NonZero::new(9).unwrap())
}

#[test]
fn images_expire_as_ever() {
    let scene = Scene::new();
    let mut ids = Vec::new();
    for number in 0..4_u8 {
        ids.push(backup(&scene.store, SOURCE, &[number; 100]).unwrap().id);
        scene.clock.advance(DAY);
    }
    let edit = ops::TagEdit::Add(vec!["daily".to_owned()]);
    ops::edit_tags(&scene.store, &ids, &edit, &ops::TagOptions::default()).unwrap();
    let plan = expire::plan(&scene.store, &Scene::source(), &options(2, Some(keep(1)))).unwrap();
    assert!(plan.thinning().is_none());
    let stats = plan.execute().unwrap();
    assert_eq!((stats.removed, stats.thinned), (ids[..2].to_vec(), None));
}

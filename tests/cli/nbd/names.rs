//! Export names are revision specifications.

use super::server::{Server, client, run_client};
use crate::scene::{IMAGE_LEN, Scene, prefix_of};

#[test]
fn every_specification_of_one_revision_is_a_name() {
    let (scene, images) = Scene::with_backups(3);
    let server = Server::start(&scene, &["-r", "1"]);
    let ids = scene.ids();
    for (name, image) in [
        ("", 1),
        ("0", 2),
        ("2", 0),
        ("latest", 2),
        ("first", 0),
        ("tag:manual:1", 1),
        (&ids[0], 0),
        (prefix_of(&ids[2]), 2),
        ("last(trust:trusted)", 2),
    ] {
        let uri = server.uri(&escaped(name));
        let arguments = [uri.as_str(), "copy.img"];
        let Some(_) = client(&scene.path("."), "nbdcopy", arguments) else { return };
        assert!(scene.read("copy.img") == images[image], "{name}");
    }
}

fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    name.bytes().map(escape).collect()
}

#[test]
fn names_of_nothing_several_or_nonsense_are_refused() {
    let (scene, _) = Scene::with_backups(2);
    let server = Server::start(&scene, &[]);
    let long = "x".repeat(4000);
    for name in ["7", "tag:nothing", "all", "(((", "../../etc/passwd", "\u{fc}", &long] {
        let arguments = ["--size", &server.uri(&escaped(name))];
        let Some(output) = run_client(&scene.path("."), "nbdinfo", arguments) else { return };
        assert_ne!(output.code, Some(0), "{name}: {}", output.stdout);
    }
    let output = client(&scene.path("."), "nbdinfo", ["--size", &server.uri("")]).unwrap();
    assert_eq!(output, format!("{IMAGE_LEN}\n"));
}

#[test]
fn the_list_has_dates_and_tags_of_all_revisions_newest_first() {
    let (scene, _) = Scene::with_backups(3);
    let server = Server::start(&scene, &[]);
    let arguments = ["--list", "--json", "--no-content", &server.uri("")];
    let Some(text) = client(&scene.path("."), "nbdinfo", arguments) else { return };
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names = list["exports"].as_array().unwrap().iter().map(|one| &one["export-name"]);
    let mut ids = scene.ids();
    ids.reverse();
    assert!(names.eq(ids.iter().map(String::as_str)));
    let first = list["exports"][0]["description"].as_str().unwrap();
    assert!(first.contains("manual:2") && first.contains("3.0 MiB"), "{first}");
    assert!(first.contains(&format!("{} ", newest_day(&scene))), "{first}");
}

/// Returns the day of the newest revision, as `status` prints it.
fn newest_day(scene: &Scene) -> String {
    let listed = scene.succeeds(["--json", "status", "-r", "0"]).json();
    listed[0]["time"].as_str().expect("a revision has a time")[..10].to_owned()
}

#[test]
fn a_revision_that_is_made_later_is_served_without_a_new_start() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    scene.write_image(crate::scene::IMAGE, IMAGE_LEN, 9);
    scene.succeeds(["backup"]);
    let arguments = [server.uri(""), "copy.img".to_owned()];
    let Some(_) = client(&scene.path("."), "nbdcopy", arguments) else { return };
    assert!(scene.read("copy.img") == scene.read(crate::scene::IMAGE));
}

#[test]
fn a_default_that_does_not_exist_is_an_error_at_the_start() {
    let (scene, _) = Scene::with_backup();
    scene.fails(10, ["nbd-server", "-r", "tag:nothing", "--socket", "s"]);
    scene.fails(2, ["nbd-server", "-r", "((", "--socket", "s"]);
    assert!(!scene.path("s").exists());
    let empty = Scene::with_init();
    empty.fails(10, ["nbd-server", "--socket", "s"]);
}

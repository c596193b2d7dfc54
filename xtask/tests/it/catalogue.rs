//! The list that Raspberry Pi Imager reads: valid by the schema that it publishes, the same whenever it is written, and whole or not there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use boon::{Compiler, Schemas};
use expect_test::expect;
use serde_json::Value;

use crate::command::Desk;
use crate::sample::{Draft, text};

const URL: &str = "https://example.org/footbridge";

/// Puts an image that names nobody on the desk.
fn put_image(desk: &Desk, name: &str) {
    let mut draft = Draft::good();
    for path in ["site/wpa_supplicant.conf", "site/authorized_keys"] {
        draft.boot.replace(path, text("# yours\n")).unwrap();
    }
    put(desk, name, draft);
}

fn put(desk: &Desk, name: &str, draft: Draft) {
    let mut image = draft.write();
    io::Seek::rewind(&mut image).unwrap();
    io::copy(
        &mut image,
        &mut File::create(desk.path().join(name)).unwrap(),
    )
    .unwrap();
}

fn read(desk: &Desk, name: &str) -> Value {
    serde_json::from_slice(&fs::read(desk.path().join(name)).unwrap()).unwrap()
}

/// Says what the published schema has against a list; nothing if it is valid.
fn objection(list: &Value) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schema/os-list-schema.json");
    let mut schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    // Its ids are fragments that only name places: it refers to none of them, and they are no addresses.
    without_ids(&mut schema);
    let mut compiler = Compiler::new();
    compiler.add_resource("os-list.json", schema).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler.compile("os-list.json", &mut schemas).unwrap();
    let error = schemas.validate(list, index).err()?;
    Some(error.to_string())
}

fn without_ids(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("$id").is_some_and(Value::is_string) {
                map.remove("$id");
            }
            map.values_mut().for_each(without_ids);
        }
        Value::Array(list) => list.iter_mut().for_each(without_ids),
        _ => {}
    }
}

#[test]
fn the_list_is_valid_and_always_the_same() {
    let desk = Desk::new();
    put_image(&desk, "a.img");
    put_image(&desk, "b c.img");
    expect![[r#"
        os_list.json
        checking the image
        checking the image
        exit code 0"#]]
    .assert_eq(&desk.run(&["catalogue", "--url", URL, "a.img", "b c.img"]));
    let first = fs::read(desk.path().join("os_list.json")).unwrap();
    desk.run(&["catalogue", "--url", URL, "b c.img", "a.img"]);
    assert!(first == fs::read(desk.path().join("os_list.json")).unwrap());

    let list = read(&desk, "os_list.json");
    assert_eq!(objection(&list), None);
    let entries = list["os_list"].as_array().unwrap();
    let urls: Vec<&Value> = entries.iter().map(|entry| &entry["url"]).collect();
    assert_eq!(
        urls,
        [
            "https://example.org/footbridge/a.img",
            "https://example.org/footbridge/b%20c.img"
        ]
    );
    assert_eq!(entries[0]["icon"], format!("{URL}/footbridge.svg"));
    assert_eq!(entries[0]["devices"], serde_json::json!(["pi3-64bit"]));
    assert_eq!(entries[0]["init_format"], "none");
    assert_eq!(
        entries[0]["extract_size"],
        fs::metadata(desk.path().join("a.img")).unwrap().len()
    );
    for name in ["os_list.json", "footbridge.svg"] {
        let mode = fs::metadata(desk.path().join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o004, 0o004, "{name} is for a web server");
    }
}

/// The schema that is held against the list would notice.
#[test]
fn the_schema_finds_faults() {
    let desk = Desk::new();
    put_image(&desk, "a.img");
    desk.run(&["catalogue", "--url", URL, "a.img"]);
    let list = read(&desk, "os_list.json");
    let changes: [fn(&mut Value); 4] = [
        |list| {
            drop(
                list["os_list"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("devices"),
            )
        },
        |list| list["os_list"][0]["extract_size"] = "large".into(),
        |list| list["os_list"][0]["init_format"] = "script".into(),
        |list| list["more"] = true.into(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut list = list.clone();
        change(&mut list);
        assert!(objection(&list).is_some(), "change {number}");
    }
}

#[test]
fn a_network_is_only_for_its_own_people() {
    let desk = Desk::new();
    put(&desk, "a.img", Draft::good());
    expect![[r#"
        checking the image
        error: a.img holds a network's key, which everybody who downloads it would have

        hint: build it with --open and a network name that nobody has, and without --ssh-key; or, if nobody else can download it, add --private
        exit code 2"#]].assert_eq(&desk.run(&["catalogue", "--url", URL, "a.img"]));
    assert_eq!(desk.names(), ["a.img"]);
    desk.run(&["catalogue", "--url", URL, "--private", "a.img"]);
    assert_eq!(objection(&read(&desk, "os_list.json")), None);
}

/// Nothing is written, and an older list stays.
#[test]
fn what_cannot_be_listed() {
    let desk = Desk::new();
    desk.put("no.img", "hello");
    desk.put("os_list.json", "old");
    let told = |args: &[&str]| desk.run(&[&["catalogue"], args].concat());
    expect![[r#"
        error: `ftp://example.org` is no address of a folder

        hint: for example: --url https://example.org/footbridge, the folder that the images will be in; without a password, `?` and `#`
        exit code 2"#]].assert_eq(&told(&["--url", "ftp://example.org", "no.img"]));
    expect![[r#"
        checking the image
        error: no.img is no Footbridge image: it does not begin with a partition table

        hint: `cargo xtask image` makes an image and prints its path
        exit code 2"#]]
    .assert_eq(&told(&["--url", URL, "no.img"]));
    expect![[r#"
        error: the images are in several folders, and will be in one

        hint: say where the list goes: --output FOLDER/os_list.json
        exit code 2"#]]
    .assert_eq(&told(&["--url", URL, "x/a.img", "y/b.img"]));
    expect![[r#"
        error: cannot read gone.img: No such file or directory (os error 2)

        hint: `cargo xtask image` makes an image and prints its path
        exit code 2"#]]
    .assert_eq(&told(&["--url", URL, "gone.img"]));
    assert_eq!(desk.names(), ["no.img", "os_list.json"]);
    assert_eq!(
        fs::read_to_string(desk.path().join("os_list.json")).unwrap(),
        "old"
    );
}

//! What is no guest at all: pieces of files, noise, the far too large, and things that only look like a file.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use backstop_tests::eventually;
use backstop_tests::hand_made::{HandMade, assemble};

use super::stage::{Stage, said_at_start};

fn file_of(stage: &Stage, policy: &str) -> PathBuf {
    stage.host.place().path(&format!("policies/{policy}.wasm"))
}

/// The file is refused in words that contain `why`; the version before it serves on.
async fn is_refused(policy: &str, file: &[u8], why: &str) {
    let stage = Stage::before(policy).await;
    stage.replace(file);
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains(why), "{refusal:?} does not say {why:?}");
    stage.is_judged_by_version("1").await;
}

/// Each of these files is refused while the version before serves on, one after the other in the same place.
async fn are_refused(policy: &str, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let stage = Stage::before(policy).await;
    let mut last = 0;
    for (what, file) in files {
        stage.replace(&file);
        let at = eventually(&format!("the refusal of {what}"), async || {
            let refusal = stage.status().await["refusal"].clone();
            let (at, why) = (refusal["at"].as_u64()?, refusal["why"].as_array()?.clone());
            assert_eq!(why.len(), 1, "{what}: {why:?}");
            (at > last).then_some(at)
        })
        .await;
        last = at;
    }
    stage.is_judged_by_version("1").await;
    stage.others_do_not_notice().await;
}

#[tokio::test]
async fn hostile_file_truncated_anywhere() {
    let whole = HandMade::named("truncated").version("2").file();
    let lengths = [0, 1, 4, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1];
    are_refused("truncated", lengths.map(|length| (format!("{length} bytes"), whole[..length].to_vec()))).await;
}

#[tokio::test]
async fn hostile_file_of_a_component_truncated_anywhere() {
    let whole = HandMade::named("truncated").version("2").component();
    let lengths = [8, 9, 100, whole.len() / 2, whole.len() - 1];
    are_refused("truncated", lengths.map(|length| (format!("{length} bytes"), whole[..length].to_vec()))).await;
}

#[tokio::test]
async fn hostile_file_of_noise() {
    // Any numbers will do, as long as they are the same every time.
    let next = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    let noise = |seed: u64, length: usize| -> Vec<u8> {
        std::iter::successors(Some(seed), next).map(|n| n.to_be_bytes()[0]).take(length).collect()
    };
    let module = |body: Vec<u8>| [b"\0asm\x01\0\0\0".to_vec(), body].concat();
    let component = |body: Vec<u8>| [b"\0asm\x0d\0\x01\0".to_vec(), body].concat();
    are_refused(
        "noise",
        [
            ("noise".to_owned(), noise(1, 100_000)),
            ("a module of noise".to_owned(), module(noise(2, 10_000))),
            ("a component of noise".to_owned(), component(noise(3, 10_000))),
        ],
    )
    .await;
}

#[tokio::test]
async fn hostile_file_of_200_mb() {
    let stage = Stage::before("vast").await;
    // A file with a hole: it costs no room on this disk, and reads like 200 MB.
    let aside = stage.host.place().path("policies/.vast");
    let file = File::create(&aside).expect("a file");
    (&file).write_all(b"\0asm\x01\0\0\0").and_then(|()| file.set_len(200_000_000)).expect("a long file");
    fs::rename(aside, file_of(&stage, "vast")).expect("renamed");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("the file is larger than 32 MiB"), "{refusal}");
    stage.is_judged_by_version("1").await;
    assert!(stage.host.peak_memory_kib() < 200_000, "{} KiB: it was not read", stage.host.peak_memory_kib());
}

#[tokio::test]
async fn hostile_component_of_100_000_functions() {
    let text = format!("(component (core module {}))", "(func)".repeat(100_001));
    is_refused("many-functions", &assemble(&text), "holds more than 100000 functions").await;
}

#[tokio::test]
async fn hostile_module_of_100_000_functions() {
    let many = HandMade::named("many-functions").items(&"(func)\n".repeat(100_001)).file();
    is_refused("many-functions", &many, "holds more than 100000 functions").await;
}

#[tokio::test]
async fn hostile_function_without_end() {
    let long = HandMade::named("long").items(&format!("(func {})", "nop ".repeat(600 << 10))).file();
    is_refused("long", &long, "holds a function of 601 KiB, and the longest that is compiled is 512 KiB").await;
}

#[tokio::test]
async fn hostile_components_within_components() {
    // Made from the inside out: the preamble of a component, and a section (4) that holds the one before.
    let nested = (0..20_000).fold(b"\0asm\x0d\0\x01\0".to_vec(), |inner, _| {
        let mut outer = b"\0asm\x0d\0\x01\0\x04".to_vec();
        let mut length = inner.len();
        while length > 0x7f {
            outer.push(0x80 | u8::try_from(length & 0x7f).unwrap_or_default());
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap_or_default());
        outer.extend(inner);
        outer
    });
    is_refused("nested", &nested, "holds components more than 8 deep within each other").await;
}

#[tokio::test]
async fn hostile_data_of_30_mb() {
    // It may be that long; what is not in memory costs an instance nothing.
    let items = format!("(data \"{}\")", "0123456789abcdef".repeat(30 << 16));
    let stage = Stage::before("heavy").await;
    stage.replace(&HandMade::named("heavy").version("2").items(&items).file());
    tokio::join!(stage.serves_in_version("2"), stage.others_do_not_notice());
}

#[tokio::test]
async fn hostile_directory_named_like_a_policy() {
    let stage = Stage::before("folder").await;
    let path = file_of(&stage, "folder");
    fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("a folder in its place");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("folder.wasm is no file"), "{refusal}");
    stage.is_judged_by_version("1").await;
    fs::remove_dir(&path).expect("removed");
    stage.replace(&HandMade::named("folder").version("mended").file());
    stage.serves_in_version("mended").await;
}

#[tokio::test]
async fn hostile_symlink_to_itself() {
    let stage = Stage::before("circle").await;
    let path = file_of(&stage, "circle");
    fs::remove_file(&path).and_then(|()| symlink("circle.wasm", &path)).expect("a link in its place");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("failed to read") && refusal.contains("symbolic links"), "{refusal}");
    stage.is_judged_by_version("1").await;
    stage.replace(&HandMade::named("circle").version("mended").file());
    stage.serves_in_version("mended").await;
}

#[tokio::test]
async fn hostile_symlink_to_an_endless_device() {
    let stage = Stage::before("device").await;
    let path = file_of(&stage, "device");
    fs::remove_file(&path).and_then(|()| symlink("/dev/zero", &path)).expect("a link in its place");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("device.wasm is no file"), "{refusal}");
    stage.is_judged_by_version("1").await;
}

#[tokio::test]
async fn hostile_pipe_named_like_a_policy() {
    let stage = Stage::before("pipe").await;
    let path = file_of(&stage, "pipe");
    fs::remove_file(&path).expect("removed");
    let made = tokio::process::Command::new("mkfifo").arg(&path).status().await;
    assert!(made.is_ok_and(|status| status.success()), "a pipe in its place");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("pipe.wasm is no file"), "{refusal}");
    stage.is_judged_by_version("1").await;
}

#[tokio::test]
async fn hostile_file_unreadable() {
    let stage = Stage::before_without_privileges("sealed").await;
    let aside = stage.host.place().path("policies/.sealed");
    fs::write(&aside, HandMade::named("sealed").version("2").file()).expect("a file");
    fs::set_permissions(&aside, Permissions::from_mode(0o000)).expect("nobody may read it");
    fs::rename(&aside, file_of(&stage, "sealed")).expect("renamed");
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains("failed to read") && refusal.contains("Permission denied"), "{refusal}");
    stage.is_judged_by_version("1").await;
}

#[tokio::test]
async fn hostile_file_deleted_while_serving() {
    let stage = Stage::before("deleted").await;
    fs::remove_file(file_of(&stage, "deleted")).expect("removed");
    eventually("its absence to be noticed", async || (stage.status().await["present"] == false).then_some(())).await;
    let said = || stage.host.log_lines("its file is gone");
    let said = eventually("the log line", async || Some(said()).filter(|lines| !lines.is_empty())).await;
    assert_eq!(said.len(), 1, "{said:?}");
    stage.is_judged_by_version("1").await;
    stage.others_do_not_notice().await;
    stage.replace(&HandMade::named("deleted").version("put back").file());
    stage.serves_in_version("put back").await;
}

#[tokio::test]
async fn hostile_file_replaced_half_written_and_then_byte_by_byte() {
    let stage = Stage::before("slow").await;
    let whole = HandMade::named("slow").version("2").file();
    let (half, rest) = whole.split_at(whole.len() / 2);
    let mut file = File::create(file_of(&stage, "slow")).expect("a file");
    file.write_all(half).expect("written");
    stage.refusal().await;
    stage.is_judged_by_version("1").await;
    for (n, byte) in rest.iter().enumerate() {
        file.write_all(&[*byte]).expect("written");
        if n % 256 == 0 {
            stage.is_judged_by_version("1").await;
        }
    }
    stage.serves_in_version("2").await;
    stage.others_do_not_notice().await;
}

#[tokio::test]
async fn hostile_files_keep_a_host_from_starting_and_it_says_why() {
    let cut = HandMade::named("cut").file();
    for (name, file, why) in [
        ("cut", &cut[..cut.len() / 2], "not valid WebAssembly"),
        ("noise", b"#!/bin/sh\necho hello\n", "this is not WebAssembly"),
        ("empty", b"", "this is not WebAssembly"),
    ] {
        let said = said_at_start(name, file).await;
        assert!(said.contains(&format!("policy `{name}`: ")) && said.contains(why), "{said:?} does not say {why:?}");
    }
}

//! The `partition` verb from outside: forms, refusals, statuses.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::process::{Command, Output};

use disksmith_testkit::oracle;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith")).args(arguments).output().unwrap()
}

fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], status: i32) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn on<'a>(image: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["partition", image], rest].concat()
}

#[test]
fn from_blank_to_converted() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["disk.raw", "disk.qcow2"] {
        let path = folder.path().join(name);
        let image = path.to_str().unwrap();
        let on = |rest: &[&'static str]| on(image, rest);
        done(&["create", image, "1G"]);
        assert!(done(&on(&[])).contains("no partition table"));
        done(&on(&["init", "mbr", "--id", "0x000e44e8"]));
        done(&on(&["add", "--align", "cylinder", "--bootable"]));
        let view = done(&on(&["--cylinders"]));
        assert!(view.contains("255 heads, 63 sectors/track, 130 cylinders"), "{view}");
        assert!(view.contains("1         130     1044193+  83  Linux"), "{view}");
        let plan = done(&on(&["resize", "1", "500M", "--dry-run"]));
        assert!(plan.contains("write bytes 0 to 511: MBR in sector 0"), "{plan}");
        done(&on(&["resize", "1", "500M"]));
        done(&on(&["move", "1", "2048"]));
        done(&on(&["convert", "gpt"]));
        // There and back: nothing is left in the way.
        done(&on(&["convert", "mbr"]));
        done(&on(&["convert", "gpt"]));
        done(&on(&["set", "1", "--name", "root", "--type", "esp"]));
        done(&on(&["add", "--size", "rest", "--type", "swap", "--name", "swap"]));
        let dump = done(&on(&["dump"]));
        assert!(dump.contains("name=\"root\"") && dump.contains("size=     1024000"), "{dump}");
        let json: serde_json::Value = serde_json::from_str(&done(&on(&["--json"]))).unwrap();
        assert_eq!(json["partitiontable"]["partitions"][0]["start"], 2048);
        assert!(refused(&on(&["init", "gpt"]), 1).contains("--force"));
        done(&on(&["remove", "root", "swap"]));
        let file = folder.path().join("dump");
        std::fs::write(&file, &dump).unwrap();
        done(&["partition", image, "restore", file.to_str().unwrap()]);
        assert_eq!(done(&on(&["dump"])), dump);
        let json: serde_json::Value =
            serde_json::from_str(&done(&on(&["dump", "--json"]))).unwrap();
        assert_eq!(json["partitiontable"]["label"], "gpt");
        assert!(done(&on(&["verify", "--json"])).contains("\"oddities\": ["));
        assert_eq!(done(&on(&["verify"])), "No problems found.\n");
        done(&on(&["remove", "swap"]));
        done(&on(&["minimise"]));
        assert!(done(&on(&[])).contains(": 502 MiB,"));
        if name == "disk.raw" {
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 502 << 20);
            assert!(oracle::succeed("sgdisk", &["-v", image]).contains("No problems found"));
        }
    }
}

#[test]
fn refusals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let image = path.to_str().unwrap();
    let on = |rest: &[&'static str]| on(image, rest);
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    assert!(refused(&on(&["add"]), 1).contains("init gpt"));
    refused(&on(&["bogus"]), 2);
    refused(&on(&["init", "sun"]), 2);
    oracle::succeed("mkfs.ext4", &["-q", "-F", "-L", "mine", image]);
    assert!(refused(&on(&["init", "gpt"]), 1).contains("ext4 'mine'"));
    assert!(done(&on(&["init", "gpt", "--dry-run"])).contains("would need --force"));
    done(&on(&["init", "gpt", "--force"]));
    done(&on(&["add", "--size", "10M"]));
    std::fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, &[0; 512], 512))
        .unwrap();
    assert!(String::from_utf8_lossy(&run(&on(&["verify"])).stdout).contains("primary-damaged"));
    refused(&on(&["verify"]), 1);
    done(&on(&["repair"]));
    done(&on(&["verify"]));
    assert!(refused(&on(&["remove", "nobody"]), 1).contains("no partition 'nobody'"));
}

/// A move of data that is killed again and again goes on where it was, and loses nothing.
#[test]
fn a_killed_move_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start) in [("disk.raw", "3MiB"), ("disk.qcow2", "3MiB"), ("far.raw", "100MiB")] {
        let path = folder.path().join(name);
        let image = path.to_str().unwrap();
        let on = |rest: &[&'static str]| on(image, rest);
        done(&["create", "-q", image, "256M"]);
        done(&on(&["init", "gpt", "-q"]));
        done(&on(&["add", "--size", "64M", "-q"]));
        let bytes = disksmith_testkit::Rng::new(5).bytes(64 << 20);
        let content = folder.path().join("content");
        std::fs::write(&content, &bytes).unwrap();
        done(&["dd", &format!("if={}", content.display()), &format!("of={image}:1")]);
        let mut kills = 0;
        for round in 0..40 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_disksmith"))
                .args(on(&["move", "1", start, "-q"]))
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(15 + 7 * round));
            let _ = child.kill();
            kills += u32::from(!child.wait().unwrap().success());
            if done(&on(&["dump"])).contains(if start == "3MiB" { "6144," } else { "204800," }) {
                break;
            }
        }
        assert!(kills > 0, "{name}: it was never interrupted");
        done(&on(&["repair", "-q"]));
        done(&on(&["move", "1", start, "-q"]));
        assert_eq!(done(&on(&["verify"])), "No problems found.\n", "{name}");
        let back = folder.path().join("back");
        done(&["dd", &format!("if={image}:1"), &format!("of={}", back.display())]);
        assert!(std::fs::read(&back).unwrap() == bytes, "{name}");
    }
}

#[test]
fn parts_are_disks_to_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let image = path.to_str().unwrap();
    let on = |rest: &[&'static str]| on(image, rest);
    done(&["create", "-q", image, "64M"]);
    done(&on(&["init", "gpt", "-q"]));
    done(&on(&["add", "--size", "16M", "--name", "root", "--bootable", "-q"]));
    done(&on(&["add", "--size", "16M", "--type", "swap", "-q"]));
    let (first, second) = (format!("{image}:root"), format!("{image}:2"));
    done(&["mkfs", &first, "--type", "ext4", "--label", "mine"]);
    assert!(refused(&["mkfs", &first], 1).contains("ext4"));
    let text = done(&["info", &first]);
    assert!(text.contains("partition: 1, Linux filesystem \"root\", sectors 2048 to 34815"));
    assert!(text.contains("content: ext4 1.0 \"mine\", 16 MiB"), "{text}");
    let json = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&done(&[words, &["--json"]].concat())).unwrap()
    };
    let part = json(&["info", &first]);
    assert_eq!(part["virtual-size"], 16 << 20);
    assert_eq!(part["partition"]["start"], 1 << 20);
    assert_eq!(part["content"]["label"], "mine");
    let whole = json(&["info", image]);
    let listed = &whole["partition-table"]["partitions"][0];
    assert_eq!((&listed["content"], &listed["bootable"]), (&part["content"], &true.into()));
    assert_eq!(listed["uuid"], part["partition"]["uuid"]);
    assert!(json(&["measure", "-O", "qcow2", &second])["required"].as_u64().unwrap() < 1 << 20);
    assert_eq!(json(&["map", &second])[0]["length"], 16 << 20);
    assert_eq!(run(&["compare", &first, &second]).status.code(), Some(1));
    done(&["dd", &format!("if={first}"), &format!("of={second}"), "status=none"]);
    done(&["compare", &first, &second]);
    let copy = folder.path().join("copy.raw");
    done(&["convert", &second, copy.to_str().unwrap()]);
    oracle::succeed("e2fsck", &["-fn", copy.to_str().unwrap()]);
    oracle::succeed("qemu-img", &["check", image]);
}

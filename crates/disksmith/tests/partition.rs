//! The `partition` verb from outside: forms, refusals, statuses.

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

//! The client beside qemu-nbd: what it reads is what the file has, and what it writes gets there.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Kind, State, ZeroMode};
use disksmith_nbd::{Address, Endpoint, NbdDisk};

const SIZE: u64 = 8 << 20;

/// A server that ends with the test.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        prepare(&image);
        let child = Command::new("qemu-nbd")
            .arg("-k")
            .arg(folder.path().join("socket"))
            .args(["-t", "-x", "exp"])
            .args(arguments)
            .arg(&image)
            .spawn()
            .expect("qemu-nbd is needed: install Debian's qemu-utils");
        let server = Self { child, folder };
        let start = Instant::now();
        while !server.socket().exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "qemu-nbd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn address(&self, export: &str) -> Address {
        Address { endpoint: Endpoint::Unix(self.socket()), export: export.to_string() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn raw(image: &Path) {
    let mut bytes = vec![0; SIZE as usize];
    bytes[1 << 20..2 << 20].copy_from_slice(&noise(1, 1 << 20));
    std::fs::write(image, bytes).unwrap();
    let status = Command::new("fallocate").arg("-d").arg(image).status().unwrap();
    assert!(status.success());
}

#[test]
fn reads_writes_and_maps() {
    let server = Server::start(&["-f", "raw"], raw);
    let disk = NbdDisk::connect(&server.address("exp"), true, None).unwrap();
    assert_eq!(disk.size(), SIZE);
    let mut got = vec![0; 3 << 20];
    disk.read_at(&mut got, 12_345).unwrap();
    let have = std::fs::read(server.image()).unwrap();
    assert_eq!(got, have[12_345..12_345 + got.len()]);

    let hole = disk.map(0, SIZE).unwrap();
    assert_eq!((hole.state, hole.length), (State::Zero, 1 << 20));
    assert_eq!(disk.map(1 << 20, SIZE).unwrap().state, State::Data);

    disk.write_at(&noise(2, 70_001), 4_194_301).unwrap();
    disk.write_zeroes(1 << 20, 4096, ZeroMode::Unmap).unwrap();
    disk.write_zeroes((1 << 20) + 5000, 100, ZeroMode::Keep).unwrap();
    disk.discard(6 << 20, 65536).unwrap();
    disk.flush().unwrap();
    let mut expected = have;
    expected[4_194_301..4_194_301 + 70_001].copy_from_slice(&noise(2, 70_001));
    expected[1 << 20..(1 << 20) + 4096].fill(0);
    expected[(1 << 20) + 5000..(1 << 20) + 5100].fill(0);
    assert!(std::fs::read(server.image()).unwrap() == expected);

    assert_eq!(disk.read_at(&mut [0; 2], SIZE - 1).unwrap_err().kind(), Kind::InvalidInput);
    disk.set_size(SIZE).unwrap();
    assert!(disk.set_size(SIZE + 1).is_err());
}

#[test]
fn what_is_not_there_is_told() {
    let server = Server::start(&["-f", "raw", "-r", "-e", "5"], raw);
    let error = NbdDisk::connect(&server.address("other"), false, None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("other"), "{error:?}");
    let error = NbdDisk::connect(&server.address("exp"), true, None).unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    let error = NbdDisk::connect(&server.address("exp"), false, Some("qemu:nope")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let disk = NbdDisk::connect(&server.address("exp"), false, None).unwrap();
    assert!(disk.write_at(&[1], 0).is_err());
    drop(disk);
    let nowhere =
        Address { endpoint: Endpoint::Unix("/nonexistent".into()), export: String::new() };
    let error = NbdDisk::connect(&nowhere, false, None).unwrap_err();
    assert_eq!(error.to_string(), "Failed to connect to '/nonexistent': No such file or directory");
}

#[test]
fn a_context_tells_of_depths() {
    let server = Server::start(&["-f", "qcow2", "-A", "-e", "5"], |image| {
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).arg(image).status().unwrap();
            assert!(status.success(), "{program} {arguments:?}");
        };
        let size = ["create", "-q", "-f", "qcow2", "-o", "size=8M"];
        run("qemu-img", &size);
        run("qemu-io", &["-f", "qcow2", "-c", "write -q 1M 1M"]);
    });
    let context = Some("qemu:allocation-depth");
    let disk = NbdDisk::connect(&server.address("exp"), false, context).unwrap();
    assert!(disk.has_context());
    assert_eq!(disk.context_status(0, SIZE).unwrap(), (1 << 20, 0));
    assert_eq!(disk.context_status(1 << 20, SIZE).unwrap(), (1 << 20, 1));
}

/// A server that answers with nonsense is an error, never a panic or an endless wait.
#[test]
fn nonsense_from_the_server_is_an_error() {
    use std::io::{Read, Write};
    let greeting = b"NBDMAGICIHAVEOPT\x00\x03".to_vec();
    let reply = |option: u8, kind: u8, data: &[u8]| {
        let mut bytes = vec![0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, option, 0, 0, 0, kind];
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    };
    let mut size = vec![0, 0];
    size.extend(SIZE.to_be_bytes());
    size.extend([0, 1]);
    let shaken =
        [reply(8, 1, &[]), reply(10, 1, &[]), reply(7, 3, &size), reply(7, 1, &[])].concat();
    let chunk = |kind: u8, cookie: u8, length: u32, data: &[u8]| {
        let mut bytes = vec![0x66, 0x8e, 0x33, 0xef, 0, 1, 0, kind];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, cookie]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        bytes
    };
    let conversations: Vec<Vec<u8>> = vec![
        vec![],
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        [b"NBDMAGIC".to_vec(), vec![0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53]].concat(),
        greeting.clone(),
        [greeting.clone(), vec![0xff; 64]].concat(),
        [greeting.clone(), shaken.clone()].concat(),
        [greeting.clone(), shaken.clone(), vec![7; 64]].concat(),
        // Another cookie, a chunk of 4 GiB, data from elsewhere, nothing where 512 bytes are due.
        [greeting.clone(), shaken.clone(), chunk(1, 9, 520, &[0; 520])].concat(),
        [greeting.clone(), shaken.clone(), chunk(1, 1, u32::MAX, &[])].concat(),
        [greeting.clone(), shaken.clone(), chunk(1, 1, 520, &[0xff; 520])].concat(),
        [greeting, shaken, chunk(0, 1, 0, &[])].concat(),
    ];
    for conversation in conversations {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let speaker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&conversation);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let address = Address { endpoint: Endpoint::Unix(socket), export: "exp".into() };
        let result =
            NbdDisk::connect(&address, false, None).and_then(|disk| disk.read_at(&mut [0; 512], 0));
        assert!(result.is_err());
        speaker.join().unwrap();
    }
}

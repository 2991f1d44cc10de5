//! What users type.

use disksmith_disk::parse_size;
use disksmith_filesystems::source::{Source, TarSource, write_tar};
use disksmith_open::{Address, ImageSpec, Secrets, parse_options};

use crate::Target;

pub(crate) const SIZES: Target = Target {
    name: "sizes",
    run: |data| drop(parse_size(&String::from_utf8_lossy(data))),
    seeds: || {
        ["10G", "1.5T", "63s", "0xffffffff", "10MiB", "18446744073709551615"].map(bytes).to_vec()
    },
    fields: &[],
    fix: None,
};

pub(crate) const OPTIONS: Target = Target {
    name: "options",
    run: |data| {
        let text = String::from_utf8_lossy(data);
        drop(parse_options(&text, None));
        drop(ImageSpec::from_image_opts(&text));
        drop(Secrets::default().add(&text));
    },
    seeds: || {
        [
            "cluster_size=64k,compat=1.1,backing_file=a,,b",
            "driver=qcow2,file.driver=file,file.filename=a.qcow2,backing.driver=raw,backing.file.filename=b",
            "secret,id=s0,data=aGVsbG8=,format=base64",
        ]
        .map(bytes)
        .to_vec()
    },
    fields: &[],
    fix: None,
};

pub(crate) const NAMES: Target = Target {
    name: "names",
    run: |data| drop(ImageSpec::from_name(&String::from_utf8_lossy(data), None)),
    seeds: || {
        [
            "json:{'driver':'qcow2','file':{'driver':'file','filename':'a'},'backing':null}",
            "nbd+unix:///x?socket=/s",
            "file:a",
            "dir/a:b",
        ]
        .map(bytes)
        .to_vec()
    },
    fields: &[],
    fix: None,
};

pub(crate) const ADDRESSES: Target = Target {
    name: "addresses",
    run: |data| {
        let text = String::from_utf8_lossy(data);
        let address = Address::parse(&text);
        drop((address.spec(), address.disk_name(), address.to_string()));
    },
    seeds: || {
        [
            "disk.qcow2@monday:1:/etc/fstab",
            "disk.vmdk:root:",
            "fs.img::/a:b@c",
            "nbd+unix:///x?socket=/s:2:/",
            "json:{\"driver\":\"raw\",\"file\":{\"filename\":\"a\"}}:1",
        ]
        .map(bytes)
        .to_vec()
    },
    fields: &[],
    fix: None,
};

/// Files read of one stream.
const TAR_FILES: usize = 1000;
/// Bytes of content taken from one stream: a sparse file may claim any number.
const TAR_BYTES: u64 = 1 << 24;

pub(crate) const TAR: Target = Target {
    name: "tar",
    run: |data| {
        let mut source = TarSource::new(data);
        let mut taken = 0;
        for _ in 0..TAR_FILES {
            let Ok(Some(_)) = source.next_file() else { break };
            drop(source.data_blocks(4096));
            let read = source.content(&mut |_, bytes| {
                taken += bytes.len() as u64;
                Ok(())
            });
            assert!(taken <= TAR_BYTES, "more content than there can be");
            if read.is_err() {
                break;
            }
        }
        drop(write_tar(&mut TarSource::new(data), &mut std::io::sink()));
    },
    seeds: || vec![tar(false), tar(true)],
    fields: TAR_FIELDS,
    fix: Some(fix_tar),
};

/// Of the first header: the fields are octal text.
const TAR_FIELDS: &[crate::Field] = &[
    crate::fields::be("name", 0, 8),
    crate::fields::be("mode", 100, 8),
    crate::fields::be("uid", 108, 8),
    crate::fields::be("size, high", 124, 4),
    crate::fields::be("size, low", 128, 8),
    crate::fields::be("mtime", 136, 8),
    crate::fields::be("typeflag", 156, 1),
    crate::fields::be("linkname", 157, 8),
    crate::fields::be("magic", 257, 8),
    crate::fields::be("devmajor", 329, 8),
    crate::fields::be("second typeflag", 1024 + 156, 1),
    crate::fields::be("pax length", 512, 4),
];

fn header(name: &str, kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "14000000000\0");
    put(257, "ustar\x0000");
    block[156] = kind;
    block
}

fn tar(pax: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    if pax {
        stream.extend(header("pax", b'x', 60));
        let mut records =
            b"27 SCHILY.xattr.user.a=abcd\n14 path=abcdef\n18 GNU.sparse.x=1\n".to_vec();
        records.resize(512, 0);
        stream.extend(records);
    }
    stream.extend(header("folder/", b'5', 0));
    stream.extend(header("folder/file", b'0', 700));
    stream.extend([b'c'; 1024]);
    stream.extend(header("link", b'2', 0));
    stream.extend(header("sparse", b'S', 512));
    stream.extend([b's'; 512]);
    stream.extend([0; 1024]);
    fix_tar(&mut stream);
    stream
}

/// The checksum of every block that looks like a header.
fn fix_tar(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

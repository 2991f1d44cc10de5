//! What users type.

use disksmith_disk::parse_size;
use disksmith_open::{ImageSpec, Secrets, parse_options};

use crate::Target;

pub(crate) const SIZES: Target = Target {
    name: "sizes",
    run: |data| drop(parse_size(&String::from_utf8_lossy(data))),
    seeds: || {
        ["10G", "1.5T", "63s", "0xffffffff", "10MiB", "18446744073709551615"].map(bytes).to_vec()
    },
    fields: &[],
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
};

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

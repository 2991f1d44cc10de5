//! LUKS headers. Unlocking is left out: its cost is bounded by its own limit, which is too
//! high for millions of inputs.

use disksmith_crypt::luks::{CreateOptions, Header, create};

use crate::{Target, fields};

pub(crate) const HEADER: Target = Target {
    name: "luks_header",
    run: |data| {
        for detached in [false, true] {
            if let Ok(header) = Header::parse(data, detached) {
                drop(header.info());
                let _ = header.encode();
            }
        }
    },
    seeds: || {
        let options = CreateOptions { iter_time_ms: 1, ..CreateOptions::default() };
        create(&options, b"secret")
            .map(|made| made.to_bytes()[..4096].to_vec())
            .into_iter()
            .collect()
    },
    fields: fields::luks::FIELDS,
    fix: None,
};

//! The options of mke2fs, read.

use disksmith_filesystems::Time;
use disksmith_filesystems::ext::{MakeOptions, Profile};

use super::{Mkfs, parse_uuid};
use crate::face::{Failure, usage};

/// `-T` of mke2fs: block size and bytes per inode, where they differ from the defaults.
const USAGES: &[(&str, Option<u32>, Option<u64>)] = &[
    ("default", Some(4096), Some(16384)),
    ("small", Some(1024), Some(4096)),
    ("floppy", Some(1024), Some(8192)),
    ("big", Some(4096), Some(32768)),
    ("huge", Some(4096), Some(65536)),
    ("news", Some(4096), Some(4096)),
    ("largefile", None, Some(1 << 20)),
    ("largefile4", None, Some(4 << 20)),
];

/// What the command line asks for.
pub(super) fn options(verb: &Mkfs, profile: Profile) -> Result<MakeOptions, Failure> {
    let default = MakeOptions::default();
    let label = verb.label.clone().unwrap_or_default().into_bytes();
    if label.len() > 16 {
        return usage("a label has at most 16 bytes");
    }
    let uuid = verb.uuid.as_deref().map(parse_uuid).transpose()?;
    let time = epoch()?;
    let (block_size, inode_ratio) = usage_type(verb.usage.as_deref())?;
    let mut options = MakeOptions {
        profile,
        // Reproducible when everything that could differ is given.
        hash_seed: uuid.filter(|_| time.is_some()),
        features: verb.features.clone().unwrap_or_default(),
        block_size: verb.block_size.or(block_size),
        cluster_size: verb.cluster_size,
        inode_size: verb.inode_size,
        inode_ratio: verb.inode_ratio.or(inode_ratio),
        inodes: verb.inodes,
        reserved: verb.reserved.unwrap_or(default.reserved),
        label,
        uuid,
        time,
        ..default
    };
    journal(verb, &mut options)?;
    extended(verb, &mut options)?;
    Ok(options)
}

fn usage_type(name: Option<&str>) -> Result<(Option<u32>, Option<u64>), Failure> {
    let Some(name) = name else { return Ok((None, None)) };
    match USAGES.iter().find(|(known, ..)| *known == name) {
        Some((_, block, ratio)) => Ok((*block, *ratio)),
        None => {
            let known: Vec<&str> = USAGES.iter().map(|usage| usage.0).collect();
            usage(format!("usage '{name}' is not known ({})", known.join(", ")))
        }
    }
}

fn journal(verb: &Mkfs, options: &mut MakeOptions) -> Result<(), Failure> {
    for (name, value) in words(verb.journal.as_deref()) {
        if name != "size" {
            return usage(format!("journal option '{name}' is not known (size)"));
        }
        let mebibytes: u64 = number(name, value)?;
        options.journal_bytes = Some(mebibytes << 20);
    }
    Ok(())
}

fn extended(verb: &Mkfs, options: &mut MakeOptions) -> Result<(), Failure> {
    for (name, value) in words(verb.extended.as_deref()) {
        match name {
            "stride" => options.stride = number(name, value)?,
            "stripe_width" | "stripe-width" => options.stripe_width = number(name, value)?,
            "lazy_itable_init" => options.full_init = number::<u8>(name, value)? == 0,
            // The journal is written whole in any case, and no disk discards what is new.
            "lazy_journal_init" | "discard" | "nodiscard" => {}
            "hash_seed" => options.hash_seed = Some(parse_uuid(value)?),
            "root_owner" => match value.split_once(':') {
                Some((user, group)) => {
                    options.root_owner = (number(name, user)?, number(name, group)?);
                }
                None => return usage(format!("root_owner is UID:GID, not '{value}'")),
            },
            other => {
                return usage(format!(
                    "extended option '{other}' is not known (stride, stripe_width, \
                     lazy_itable_init, hash_seed, root_owner)"
                ));
            }
        }
    }
    Ok(())
}

fn words(list: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let words = list.unwrap_or_default().split(',').filter(|word| !word.is_empty());
    words.map(|word| word.split_once('=').unwrap_or((word, "")))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    match value.parse() {
        Ok(number) => Ok(number),
        Err(_) => usage(format!("'{value}' is no number for {name}")),
    }
}

/// The time that everything made bears, if the environment asks for a reproducible result.
pub(crate) fn epoch() -> Result<Option<Time>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(Some(Time::from_seconds(seconds))),
            Err(_) => usage(format!("SOURCE_DATE_EPOCH is '{text}', which is no number of seconds")),
        },
    }
}

//! Options of formats: the list that `-o help` prints and the values in the `Formatting` line.

use disksmith_disk::Result;
use disksmith_formats::{Driver, OptionKind, OptionSpec, Options};

/// The guest-visible size, which every format has.
pub(crate) const SIZE: OptionSpec =
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None };
const BACKING_FILE: OptionSpec = OptionSpec {
    name: "backing_file",
    kind: OptionKind::Text,
    help: "File name of a base image",
    default: None,
};
const BACKING_FORMAT: OptionSpec = OptionSpec {
    name: "backing_fmt",
    kind: OptionKind::Text,
    help: "Image format of the base image",
    default: None,
};
/// What the plain-file protocol adds.
pub(crate) const PROTOCOL: &[OptionSpec] = &[
    OptionSpec {
        name: "extent_size_hint",
        kind: OptionKind::Size,
        help: "Extent size hint for the image file, 0 to disable",
        default: None,
    },
    OptionSpec {
        name: "nocow",
        kind: OptionKind::Flag,
        help: "Turn off copy-on-write (valid only on btrfs)",
        default: None,
    },
];

/// All options for making an image of this format, in the order of the `Formatting` line:
/// the common ones stand where the format's own table leaves room for them.
pub(crate) fn create_options(driver: &Driver) -> Vec<OptionSpec> {
    let mut list = driver.create_options.to_vec();
    let has = |list: &[OptionSpec], name: &str| list.iter().any(|spec| spec.name == name);
    let place = |list: &[OptionSpec], name: &str| list.iter().position(|spec| spec.name == name);
    if !has(&list, "size") {
        let at = place(&list, "compat").unwrap_or(0);
        list.insert(at, SIZE);
    }
    if driver.backing && !has(&list, "backing_file") {
        let before = place(&list, "compat").or_else(|| place(&list, "adapter_type"));
        let at = before.or_else(|| place(&list, "size")).map_or(0, |at| at + 1);
        list.insert(at, BACKING_FORMAT);
        list.insert(at, BACKING_FILE);
    }
    list
}

/// ` size=1024 preallocation=off`: what was given and what has a default.
pub(crate) fn values(list: &[OptionSpec], given: &Options) -> Result<String> {
    let mut text = String::new();
    for spec in list {
        let value = match (given.text(spec.name), spec.kind) {
            (Some(_), OptionKind::Size) => given.size(spec.name)?.map(|n| n.to_string()),
            (Some(value), OptionKind::Number) if value.starts_with('-') => Some(value.to_string()),
            (Some(_), OptionKind::Number) => given.number(spec.name)?.map(|n| n.to_string()),
            (Some(value), OptionKind::Text) => Some(value.replace(',', ",,")),
            (Some(value), OptionKind::Flag) => Some(value.to_string()),
            (None, _) => spec.default.map(str::to_string),
        };
        if let Some(value) = value {
            text += &format!(" {}={value}", spec.name);
        }
    }
    Ok(text)
}

/// What `-o help` prints: with a target, what the file below it knows too.
pub(crate) fn create_help(driver: &Driver, has_target: bool) -> String {
    let mut list = create_options(driver);
    if has_target {
        list.extend_from_slice(PROTOCOL);
        return format!("Supported options:\n{}", help(&list));
    }
    // It is the file below that can be preallocated.
    let own = !["raw", "luks"].contains(&driver.name);
    list.retain(|spec| own || spec.name != "preallocation");
    format!(
        "Supported {} options:\n{}\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n",
        driver.name,
        help(&list)
    )
}

/// The lines of `-o help`, sorted by name.
pub(crate) fn help(list: &[OptionSpec]) -> String {
    let mut sorted = list.to_vec();
    sorted.sort_by_key(|spec| spec.name);
    sorted.dedup_by_key(|spec| spec.name);
    sorted.iter().map(help_line).collect()
}

fn help_line(spec: &OptionSpec) -> String {
    let kind = match spec.kind {
        OptionKind::Flag => "bool (on/off)",
        OptionKind::Number => "num",
        OptionKind::Size => "size",
        OptionKind::Text => "str",
    };
    let name = format!("  {}=<{kind}>", spec.name);
    format!("{name:<24} - {}\n", spec.help)
}

//! `stat`: everything about files in an image.

use disksmith_disk::{Error, Kind, Result, names};
use disksmith_filesystems::{Attributes, FileKind};
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use crate::face::{Face, Outcome};
use crate::guest::look::look;
use crate::guest::{Access, Guest, show};

/// The arguments of `stat`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Stat {
    #[command(flatten)]
    pub access: Access,
    /// Of what a symlink points to
    #[arg(short = 'L', long)]
    pub dereference: bool,
    /// Print this for each, as stat(1) does: %n %s %b %B %f %F %a %A %u %g %h %i %N %t %T, and
    /// %x %y %z %w or, in seconds, %X %Y %Z %W for the times
    #[arg(short = 'c', long = "print", value_name = "FORMAT", conflicts_with_all = ["json", "output"])]
    pub print: Option<String>,
    #[command(flatten)]
    pub form: Form,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Stat {
    const NAME: &'static str = "stat";
    const ABOUT: &'static str = "Tell everything about files in an image";

    fn run(self, face: &Face) -> Outcome {
        look(face, &self.access, &self.form, &self.addresses, &mut |looking, guest, path| {
            let found = guest.find(path, self.dereference)?;
            match &self.print {
                Some(format) => face.print(&formatted(format, guest, path, &found)?),
                None if looking.json => looking.tell(value(guest, path, &found)?),
                None => face.print(&text_of(guest, path, &found)?),
            }
            Ok(())
        })
    }
}

fn text_of(guest: &Guest, path: &str, found: &Attributes) -> Result<String> {
    let mut name = show::name(&names::to_bytes(path));
    if found.kind == FileKind::Symlink {
        name += &format!(" -> {}", show::name(&guest.tree.read_link(found.inode)?));
    }
    let mut text = format!(
        "  File: {name}\n  Size: {:<15} Blocks: {:<10} {}\n Inode: {:<15} Links: {}\n",
        found.size,
        found.blocks,
        show::kind(found.kind),
        found.inode,
        found.links
    );
    if found.kind.is_device() {
        text += &format!("Device type: {},{}\n", found.device.major, found.device.minor);
    }
    text += &format!(
        "Access: ({:04o}/{})  Uid: {}  Gid: {}\n",
        found.mode,
        show::mode(found),
        found.uid,
        found.gid
    );
    for (label, time) in
        [("Access", found.accessed), ("Modify", found.modified), ("Change", found.changed)]
    {
        text += &format!("{label}: {}\n", show::time(time, true));
    }
    match found.created {
        Some(created) => text += &format!(" Birth: {}\n", show::time(created, true)),
        None => text += " Birth: -\n",
    }
    if found.flags != 0 {
        text += &format!(" Flags: {:#x}\n", found.flags);
    }
    for name in guest.tree.xattrs(found.inode)? {
        let value = guest.tree.xattr(found.inode, &name)?;
        text += &format!(" Xattr: {}={}\n", show::name(&name), quoted(&value));
    }
    Ok(text)
}

/// A line in the form of stat(1)'s `-c`.
fn formatted(format: &str, guest: &Guest, path: &str, found: &Attributes) -> Result<String> {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '%') {
            (_, true) => match letters.next() {
                Some(directive) => text += &directed(directive, guest, path, found)?,
                None => text.push('%'),
            },
            (letter, _) => text.push(letter),
        }
    }
    text.push('\n');
    Ok(text)
}

fn directed(letter: char, guest: &Guest, path: &str, found: &Attributes) -> Result<String> {
    let name = || show::name(&names::to_bytes(path));
    let born = found.created;
    Ok(match letter {
        'n' => name(),
        'N' if found.kind == FileKind::Symlink => {
            format!("'{}' -> '{}'", name(), show::name(&guest.tree.read_link(found.inode)?))
        }
        'N' => format!("'{}'", name()),
        's' => found.size.to_string(),
        'b' => found.blocks.to_string(),
        'B' => "512".into(),
        'f' => format!("{:x}", u32::from(found.kind.mode_bits()) | u32::from(found.mode)),
        'F' if found.kind == FileKind::Regular && found.size == 0 => "regular empty file".into(),
        'F' => show::kind(found.kind).into(),
        'a' => format!("{:o}", found.mode),
        'A' => show::mode(found),
        'u' => found.uid.to_string(),
        'g' => found.gid.to_string(),
        'h' => found.links.to_string(),
        'i' => found.inode.to_string(),
        't' => format!("{:x}", found.device.major),
        'T' => format!("{:x}", found.device.minor),
        'x' => show::time(found.accessed, true),
        'y' => show::time(found.modified, true),
        'z' => show::time(found.changed, true),
        'w' => born.map_or_else(|| "-".into(), |time| show::time(time, true)),
        'X' => found.accessed.seconds.to_string(),
        'Y' => found.modified.seconds.to_string(),
        'Z' => found.changed.seconds.to_string(),
        'W' => born.map_or(0, |time| time.seconds).to_string(),
        '%' => "%".into(),
        other => {
            let why = format!("stat knows no directive '%{other}'");
            return Err(Error::new(Kind::InvalidInput, why));
        }
    })
}

/// As getfattr prints values: text where it is text, else hexadecimal.
fn quoted(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => format!("\"{}\"", show::name(value)),
        _ => format!("0x{}", hex(value)),
    }
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value(guest: &Guest, path: &str, found: &Attributes) -> Result<Value> {
    let target = match found.kind {
        FileKind::Symlink => Some(guest.tree.read_link(found.inode)?),
        _ => None,
    };
    let mut value = show::json(&names::to_bytes(path), found, target.as_deref());
    let mut xattrs = serde_json::Map::new();
    for name in guest.tree.xattrs(found.inode)? {
        let content = guest.tree.xattr(found.inode, &name)?;
        xattrs.insert(String::from_utf8_lossy(&name).into_owned(), json!(hex(&content)));
    }
    value["flags"] = json!(found.flags);
    value["generation"] = json!(found.generation);
    value["project"] = json!(found.project);
    value["xattrs"] = Value::Object(xattrs);
    Ok(value)
}

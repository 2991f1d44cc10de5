//! `find`: files in an image by name, kind, size or owner.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

use disksmith_disk::{Result, names, parse_size};
use disksmith_filesystems::FileKind;

use super::Verb;
use super::common::Form;
use crate::face::{Face, Failure, Outcome, senseless, usage};
use crate::guest::look::{Looking, look};
use crate::guest::walk::{Met, entries, join, walk};
use crate::guest::{Access, Guest, show};

/// The arguments of `find`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Find {
    #[command(flatten)]
    pub access: Access,
    /// Whose last name fits a pattern: * ? [a-z]
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,
    /// The same, ASCII letters in either case
    #[arg(long, value_name = "PATTERN")]
    pub iname: Option<String>,
    /// Whose whole path fits a pattern
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<String>,
    /// Of this kind: f d l c b p s; or of one of several: f,l
    #[arg(long = "type", value_name = "KIND")]
    pub kind: Option<String>,
    /// Of at least this size (+SIZE), at most (-SIZE), exactly (SIZE)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub size: Option<String>,
    /// With all of these permission bits (octal); /BITS with any of them
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub perm: Option<String>,
    /// Of this numeric owner
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Of this numeric group
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Files without content, directories without entries
    #[arg(long)]
    pub empty: bool,
    /// Not more than so many directories down
    #[arg(long, value_name = "N")]
    pub max_depth: Option<usize>,
    /// At least so many directories down
    #[arg(long, value_name = "N")]
    pub min_depth: Option<usize>,
    /// Print the paths, which is done anyhow
    #[arg(long, hide = true)]
    pub print: bool,
    /// End each path with a zero byte, and escape nothing
    #[arg(short = '0', long)]
    pub print0: bool,
    #[command(flatten)]
    pub form: Form,
    /// Where to begin: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Find {
    const NAME: &'static str = "find";
    const ABOUT: &'static str = "Find files in an image";

    fn run(self, face: &Face) -> Outcome {
        let tests = self.tests()?;
        look(face, &self.access, &self.form, &self.addresses, &mut |looking, guest, begin| {
            self.find(looking, guest, begin, &tests)
        })
    }
}

fn write(face: &Face, text: &mut Vec<u8>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text).and_then(|()| out.flush()) {
        drop(out);
        face.end_unread(&error);
    }
    text.clear();
}

/// Permission bits that are looked for.
enum Bits {
    All(u16),
    Any(u16),
}

struct Tests<'a> {
    name: Option<Cow<'a, [u8]>>,
    iname: Option<Vec<u8>>,
    path: Option<Cow<'a, [u8]>>,
    kinds: Option<Vec<FileKind>>,
    size: Option<(std::cmp::Ordering, u64)>,
    perm: Option<Bits>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Find {
    fn find(
        &self,
        looking: &mut Looking<'_>,
        guest: &Guest,
        begin: &str,
        tests: &Tests<'_>,
    ) -> Result<()> {
        let start = guest.find(begin, false)?;
        let begin = names::to_bytes(begin);
        let looking = RefCell::new(looking);
        let mut text: Vec<u8> = Vec::new();
        let done = walk(
            &*guest.tree,
            start,
            &mut |met| {
                let path = match met.path {
                    b"" => begin.to_vec(),
                    below => join(&begin, below),
                };
                let deep = self.min_depth.is_none_or(|least| met.depth >= least);
                if deep && tests.fit(met, &path) && (!self.empty || is_empty(guest, &met.found)?) {
                    let mut looking = looking.borrow_mut();
                    match (looking.json, self.print0) {
                        (true, _) => looking.tell(show::json(&path, &met.found, None)),
                        (_, true) => {
                            text.extend(&path);
                            text.push(0);
                        }
                        _ => text.extend(format!("{}\n", show::name(&path)).into_bytes()),
                    }
                }
                if text.len() > 65_536 {
                    write(looking.borrow().face, &mut text);
                }
                Ok(self.max_depth.is_none_or(|most| met.depth < most))
            },
            &mut |path, error| looking.borrow_mut().fail_at(path, error),
        );
        write(looking.borrow().face, &mut text);
        done
    }

    fn tests(&self) -> std::result::Result<Tests<'_>, Failure> {
        let kinds = match &self.kind {
            None => None,
            Some(text) => Some(text.split(',').map(kind).collect::<std::result::Result<_, _>>()?),
        };
        let size = match self.size.as_deref() {
            None => None,
            Some(text) => Some(match (text.strip_prefix('+'), text.strip_prefix('-')) {
                (Some(least), _) => (std::cmp::Ordering::Greater, bytes(least)?),
                (_, Some(most)) => (std::cmp::Ordering::Less, bytes(most)?),
                _ => (std::cmp::Ordering::Equal, bytes(text)?),
            }),
        };
        let perm = match self.perm.as_deref() {
            None => None,
            Some(text) => Some(match text.strip_prefix('/') {
                Some(any) => Bits::Any(octal(any)?),
                None => Bits::All(octal(text.strip_prefix('-').unwrap_or(text))?),
            }),
        };
        Ok(Tests {
            name: self.name.as_deref().map(names::to_bytes),
            path: self.path.as_deref().map(names::to_bytes),
            iname: self.iname.as_deref().map(|text| names::to_bytes(text).to_ascii_lowercase()),
            kinds,
            size,
            perm,
            uid: self.uid,
            gid: self.gid,
        })
    }
}

fn kind(letter: &str) -> std::result::Result<FileKind, Failure> {
    Ok(match letter {
        "f" => FileKind::Regular,
        "d" => FileKind::Directory,
        "l" => FileKind::Symlink,
        "c" => FileKind::CharDevice,
        "b" => FileKind::BlockDevice,
        "p" => FileKind::Fifo,
        "s" => FileKind::Socket,
        other => return usage(format!("--type expects one of f d l c b p s, not '{other}'")),
    })
}

fn octal(text: &str) -> std::result::Result<u16, Failure> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) => Ok(bits),
        Err(_) => usage("--perm expects an octal mode"),
    }
}

fn is_empty(guest: &Guest, found: &disksmith_filesystems::Attributes) -> Result<bool> {
    match found.kind {
        FileKind::Regular => Ok(found.size == 0),
        FileKind::Directory => Ok(entries(&*guest.tree, found.inode)?.is_empty()),
        _ => Ok(false),
    }
}

/// A size; find(1) writes `c` behind bytes.
fn bytes(text: &str) -> std::result::Result<u64, Failure> {
    parse_size(text.strip_suffix('c').unwrap_or(text)).map_err(senseless)
}

impl Tests<'_> {
    fn fit(&self, met: &Met<'_>, path: &[u8]) -> bool {
        let found = &met.found;
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let last = if last.is_empty() { &b"/"[..] } else { last };
        self.name.as_ref().is_none_or(|pattern| fits(pattern, last))
            && self.path.as_ref().is_none_or(|pattern| fits(pattern, path))
            && self.iname.as_ref().is_none_or(|pattern| fits(pattern, &last.to_ascii_lowercase()))
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&found.kind))
            && self.size.is_none_or(|(order, size)| {
                found.size == size || found.size.cmp(&size) == order
            })
            && self.perm.as_ref().is_none_or(|bits| match bits {
                Bits::All(bits) => found.mode & bits == *bits,
                Bits::Any(bits) => *bits == 0 || found.mode & bits != 0,
            })
            && self.uid.is_none_or(|uid| uid == found.uid)
            && self.gid.is_none_or(|gid| gid == found.gid)
    }
}

/// Whether a shell pattern fits all of `text`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    // The last star, and what it was tried on: one level of trying again is enough for globs.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(b'\\') if pattern.get(p + 1) == Some(&text[t]) => Some(2),
            Some(letter) if *letter == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

/// The length of `[…]` if it has the letter.
fn class(pattern: &[u8], letter: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let begin = if negated { 2 } else { 1 };
    let end = pattern.iter().skip(begin + 1).position(|b| *b == b']')? + begin + 1;
    let (set, mut at, mut has) = (&pattern[begin..end], 0, false);
    while at < set.len() {
        match (set.get(at + 1), set.get(at + 2)) {
            (Some(b'-'), Some(high)) => {
                has |= (set[at]..=*high).contains(&letter);
                at += 3;
            }
            _ => {
                has |= set[at] == letter;
                at += 1;
            }
        }
    }
    (has != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_as_in_the_shell() {
        for (pattern, text, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "aXbXbc", true),
            ("?", "ab", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("\\*", "*", true),
            ("*", "", true),
            ("a[", "a[", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}

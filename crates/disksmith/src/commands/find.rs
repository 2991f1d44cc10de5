//! `find`: files in an image by name, kind, size or owner.

use std::cell::RefCell;
use std::io::Write;

use disksmith_disk::{Result, parse_size};
use disksmith_filesystems::FileKind;

use super::Verb;
use super::common::Form;
use crate::face::{FAILED, Face, Failure, Outcome, usage};
use crate::guest::look::{Looking, look};
use crate::guest::walk::{Met, join, walk};
use crate::guest::{Access, Guest, show};

/// The arguments of `find`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Find {
    #[command(flatten)]
    pub access: Access,
    /// Whose last name fits a pattern: * ? [a-z]
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,
    /// Whose whole path fits a pattern
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<String>,
    /// Of this kind: f d l c b p s
    #[arg(long = "type", value_name = "KIND")]
    pub kind: Option<String>,
    /// Of at least this size (+SIZE), at most (-SIZE), exactly (SIZE)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub size: Option<String>,
    /// With all of these permission bits (octal)
    #[arg(long, value_name = "MODE")]
    pub perm: Option<String>,
    /// Of this numeric owner
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Of this numeric group
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Not more than so many directories down
    #[arg(long, value_name = "N")]
    pub max_depth: Option<usize>,
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

fn write(text: &mut Vec<u8>) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text).and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(FAILED));
    }
    text.clear();
}

struct Tests<'a> {
    name: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    kind: Option<FileKind>,
    size: Option<(std::cmp::Ordering, u64)>,
    perm: Option<u16>,
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
        let looking = RefCell::new(looking);
        let mut text: Vec<u8> = Vec::new();
        let done = walk(
            &*guest.tree,
            start,
            &mut |met| {
                let path = match met.path {
                    b"" => begin.as_bytes().to_vec(),
                    below => join(begin.as_bytes(), below),
                };
                if tests.fit(met, &path) {
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
                    write(&mut text);
                }
                Ok(self.max_depth.is_none_or(|most| met.depth < most))
            },
            &mut |path, error| looking.borrow_mut().fail_at(path, error),
        );
        write(&mut text);
        done
    }

    fn tests(&self) -> std::result::Result<Tests<'_>, Failure> {
        let kind = match self.kind.as_deref() {
            None => None,
            Some("f") => Some(FileKind::Regular),
            Some("d") => Some(FileKind::Directory),
            Some("l") => Some(FileKind::Symlink),
            Some("c") => Some(FileKind::CharDevice),
            Some("b") => Some(FileKind::BlockDevice),
            Some("p") => Some(FileKind::Fifo),
            Some("s") => Some(FileKind::Socket),
            Some(other) => return usage(format!("--type expects one of f d l c b p s, not '{other}'")),
        };
        let size = match self.size.as_deref() {
            None => None,
            Some(text) => Some(match (text.strip_prefix('+'), text.strip_prefix('-')) {
                (Some(least), _) => (std::cmp::Ordering::Greater, parse_size(least)?),
                (_, Some(most)) => (std::cmp::Ordering::Less, parse_size(most)?),
                _ => (std::cmp::Ordering::Equal, parse_size(text)?),
            }),
        };
        let perm = match self.perm.as_deref().map(|text| u16::from_str_radix(text, 8)) {
            None => None,
            Some(Ok(bits)) => Some(bits),
            Some(Err(_)) => return usage("--perm expects an octal mode"),
        };
        Ok(Tests {
            name: self.name.as_deref().map(str::as_bytes),
            path: self.path.as_deref().map(str::as_bytes),
            kind,
            size,
            perm,
            uid: self.uid,
            gid: self.gid,
        })
    }
}

impl Tests<'_> {
    fn fit(&self, met: &Met<'_>, path: &[u8]) -> bool {
        let found = &met.found;
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let last = if last.is_empty() { &b"/"[..] } else { last };
        self.name.is_none_or(|pattern| fits(pattern, last))
            && self.path.is_none_or(|pattern| fits(pattern, path))
            && self.kind.is_none_or(|kind| kind == found.kind)
            && self.size.is_none_or(|(order, size)| {
                found.size == size || found.size.cmp(&size) == order
            })
            && self.perm.is_none_or(|bits| found.mode & bits == bits)
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

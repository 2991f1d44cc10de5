//! Addresses: `IMAGE[@SNAPSHOT][:PART[:PATH]]`.
//!
//! ```
//! use disksmith_open::Address;
//! let address = Address::parse("disk.qcow2@monday:root:/etc/fstab");
//! assert_eq!(address.image, "disk.qcow2@monday");
//! assert_eq!(address.part.as_deref(), Some("root"));
//! assert_eq!(address.path.as_deref(), Some("/etc/fstab"));
//! ```
//! (`@monday` became a part of the name because there is no file `disk.qcow2`: a name is split
//! where a prefix of it exists.)

use std::fmt;
use std::fs;

use disksmith_disk::{Result, names};

use crate::ImageSpec;

/// Protocols whose names are not split at their own colons.
const SCHEMES: &[&str] = &["nbd", "nbd+unix", "nbds", "nbds+unix", "http", "https", "s3"];

/// What a user named: an image, and what in it is meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Address {
    /// The image: a path, a URL or `json:{…}`.
    pub image: String,
    /// An internal snapshot of it, by id or name.
    pub snapshot: Option<String>,
    /// A partition; the empty text lets the disk tell which. `None`: the whole disk is meant.
    pub part: Option<String>,
    /// A path in the filesystem there.
    pub path: Option<String>,
    /// The image's format; `None` = to be probed.
    pub format: Option<String>,
    /// `image` is a path, whatever it looks like.
    pub is_path: bool,
}

impl Address {
    /// Splits an address. The longest beginning that is the name of an existing file is the
    /// image; a file whose own name has a colon or an `@` is so found by that name.
    pub fn parse(text: &str) -> Self {
        if let Some(end) = scheme_end(text) {
            let (image, rest) = text.split_at(end);
            return Self { image: image.to_string(), ..Self::default() }.with_rest(rest);
        }
        if let Some(end) = existing_end(text) {
            let (image, rest) = text.split_at(end);
            let found = Self { image: image.to_string(), is_path: true, ..Self::default() };
            return found.with_rest(rest);
        }
        // Nothing exists: everything up to the first colon is what could not be found.
        let end = text.find(':').unwrap_or(text.len());
        let (image, rest) = text.split_at(end);
        Self { image: image.to_string(), ..Self::default() }.with_rest(rest)
    }

    /// The same with the format stated.
    #[must_use]
    pub fn with_format(mut self, format: Option<&str>) -> Self {
        self.format = format.map(str::to_string);
        self
    }

    /// Whether a whole image is meant as it is now: no snapshot, no partition, no path.
    pub fn is_plain(&self) -> bool {
        self.snapshot.is_none() && self.part.is_none() && self.path.is_none()
    }

    /// What is to be opened.
    pub fn spec(&self) -> Result<ImageSpec> {
        match self.is_path {
            true => {
                let path = names::to_path(&self.image);
                Ok(ImageSpec::from_path(path, &self.image, self.format.as_deref()))
            }
            false => ImageSpec::from_name(&self.image, self.format.as_deref()),
        }
    }

    /// The address without its path.
    pub fn disk_name(&self) -> String {
        Self { path: None, ..self.clone() }.to_string()
    }

    fn with_rest(mut self, rest: &str) -> Self {
        let (snapshot, rest) = match rest.strip_prefix('@') {
            Some(after) => {
                let end = after.find(':').unwrap_or(after.len());
                (Some(after[..end].to_string()), &after[end..])
            }
            None => (None, rest),
        };
        self.snapshot = snapshot;
        if let Some(after) = rest.strip_prefix(':') {
            let (part, path) = match after.split_once(':') {
                Some((part, path)) => (part, Some(path.to_string())),
                None => (after, None),
            };
            self.part = Some(part.to_string());
            self.path = path;
        }
        self
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image)?;
        if let Some(snapshot) = &self.snapshot {
            write!(f, "@{snapshot}")?;
        }
        if let Some(part) = &self.part {
            write!(f, ":{part}")?;
        }
        match &self.path {
            Some(path) => write!(f, ":{path}"),
            None => Ok(()),
        }
    }
}

/// Where the image ends in a name that is no path: a URL, a tree of options.
fn scheme_end(text: &str) -> Option<usize> {
    if let Some(tree) = text.strip_prefix("json:") {
        return Some(5 + tree_end(tree));
    }
    let (scheme, rest) = text.split_once("://")?;
    if !SCHEMES.contains(&scheme) {
        return None;
    }
    // The colon before a port is not ours: look behind the host, in the last component.
    let begin = text.len() - rest.len();
    let Some(slash) = rest.find('/').map(|slash| begin + slash) else { return Some(text.len()) };
    let tail = &text[slash..];
    let end = tail.find([':', '@']).map_or(text.len(), |end| slash + end);
    Some(end)
}

/// The length of a `{…}`, strings in it respected.
fn tree_end(tree: &str) -> usize {
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (at, letter) in tree.char_indices() {
        match (quote, letter) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '{') => depth += 1,
            (None, '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tree.len()
}

/// The longest beginning of `text`, up to its end, a colon or an `@`, that names a file.
fn existing_end(text: &str) -> Option<usize> {
    let ends = text.char_indices().filter(|(_, letter)| matches!(letter, ':' | '@'));
    let ends: Vec<usize> = ends.map(|(at, _)| at).chain([text.len()]).collect();
    ends.into_iter().rev().find(|end| {
        let name = &text[..*end];
        !name.is_empty()
            && fs::metadata(names::to_path(name)).is_ok_and(|metadata| !metadata.is_dir())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(address: &Address) -> (&str, Option<&str>, Option<&str>, Option<&str>) {
        (
            &address.image,
            address.snapshot.as_deref(),
            address.part.as_deref(),
            address.path.as_deref(),
        )
    }

    #[test]
    fn names_of_files_win() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        for name in ["disk.qcow2", "odd:1", "odd@x"] {
            fs::write(place(name), "").unwrap();
        }
        let disk = place("disk.qcow2");
        for (text, expected) in [
            (disk.clone(), (None, None, None)),
            (format!("{disk}:1"), (None, Some("1"), None)),
            (format!("{disk}:"), (None, Some(""), None)),
            (format!("{disk}::/"), (None, Some(""), Some("/"))),
            (format!("{disk}:root:/a:b@c"), (None, Some("root"), Some("/a:b@c"))),
            (format!("{disk}@mon:1"), (Some("mon"), Some("1"), None)),
            (format!("{disk}@mon::/var"), (Some("mon"), Some(""), Some("/var"))),
            (format!("{disk}@mon"), (Some("mon"), None, None)),
        ] {
            let address = Address::parse(&text);
            let (snapshot, part, path) = expected;
            assert_eq!(parts(&address), (disk.as_str(), snapshot, part, path), "{text}");
            assert_eq!(address.to_string(), text);
            assert!(address.is_path);
        }
        let odd = place("odd:1");
        assert_eq!(parts(&Address::parse(&odd)), (odd.as_str(), None, None, None));
        let text = format!("{odd}:2:/x");
        assert_eq!(parts(&Address::parse(&text)), (odd.as_str(), None, Some("2"), Some("/x")));
        let odd = place("odd@x");
        assert_eq!(parts(&Address::parse(&odd)), (odd.as_str(), None, None, None));
    }

    #[test]
    fn what_is_not_there_is_split_at_the_first_colon() {
        let address = Address::parse("/no/where:1:/x");
        assert_eq!(parts(&address), ("/no/where", None, Some("1"), Some("/x")));
        assert!(!address.is_path);
    }

    #[test]
    fn urls_and_trees_keep_their_colons() {
        for (text, image, part) in [
            ("nbd://host:10809/export:1", "nbd://host:10809/export", Some("1")),
            ("nbd://host:10809", "nbd://host:10809", None),
            ("https://h/a.img::/etc", "https://h/a.img", Some("")),
            ("json:{'a':{'b':'}'}}:2", "json:{'a':{'b':'}'}}", Some("2")),
        ] {
            let address = Address::parse(text);
            assert_eq!((address.image.as_str(), address.part.as_deref()), (image, part), "{text}");
        }
    }
}

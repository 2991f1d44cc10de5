//! File names as users give them and as images store them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use disksmith_disk::names;

/// What a name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Name {
    /// A plain path.
    Path(PathBuf),
    /// `json:{…}`; the text after the colon.
    Json(String),
    /// `nbd://…`, `http://…`, `blkdebug:…`: the protocol and the whole name.
    Protocol(String, String),
}

impl Name {
    /// Reads a name by QEMU's rules: a colon before the first slash makes it a protocol;
    /// `file:` is a plain path.
    pub fn parse(text: &str) -> Self {
        let colon = text.find(':').filter(|colon| !text[..*colon].contains('/'));
        match colon.map(|colon| (&text[..colon], &text[colon + 1..])) {
            Some(("file", rest)) => Self::Path(unambiguous(rest)),
            Some(("json", rest)) => Self::Json(rest.to_string()),
            Some((protocol, _)) => Self::Protocol(protocol.to_string(), text.to_string()),
            None => Self::Path(names::to_path(text).into_owned()),
        }
    }
}

/// A path that, shown as it is, will not be taken for a protocol.
fn unambiguous(path: &str) -> PathBuf {
    match Name::parse(path) {
        Name::Path(path) => path,
        _ => PathBuf::from(format!("./{path}")),
    }
}

/// The path that an image means by `name`: absolute names as they are, relative ones joined to
/// the directory part of the image that names them, by plain text.
pub fn resolve(image: &Path, name: &str) -> PathBuf {
    let name = names::to_path(name).into_owned();
    if name.is_absolute() {
        return name;
    }
    // Plain text, as QEMU joins: "dir/" + name, nothing normalised.
    let image = image.as_os_str().as_bytes();
    match image.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => {
            let joined = [&image[..=slash], name.as_os_str().as_bytes()].concat();
            PathBuf::from(OsString::from_vec(joined))
        }
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_before_a_slash_are_protocols() {
        assert_eq!(Name::parse("a/b:c"), Name::Path("a/b:c".into()));
        assert_eq!(Name::parse("file:x"), Name::Path("x".into()));
        assert_eq!(Name::parse("nbd://h/x"), Name::Protocol("nbd".into(), "nbd://h/x".into()));
        assert_eq!(Name::parse("json:{}"), Name::Json("{}".into()));
    }

    #[test]
    fn relative_names_join_the_images_folder() {
        assert_eq!(resolve(Path::new("d/o.qcow2"), "b.raw"), Path::new("d/b.raw"));
        assert_eq!(resolve(Path::new("o.qcow2"), "b.raw"), Path::new("b.raw"));
        assert_eq!(resolve(Path::new("d/o.qcow2"), "/b.raw"), Path::new("/b.raw"));
    }
}

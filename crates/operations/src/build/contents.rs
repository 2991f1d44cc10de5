//! The files of a partition: from directories, tar files and lists, put together.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Error, Kind, PageBuffer, Result};
use disksmith_filesystems::source::{DirectorySource, Node, Source, SourceFile, TarSource, unpack};
use disksmith_filesystems::{Time, errors};

use super::owners::Owners;
use super::spec::{ContentSpec, FileSpec, PartitionSpec, invalid, parse_mode, parse_owner};

/// Read at once.
const BUFFER: usize = 1 << 20;

/// Opens the files of a partition. Standard input, which is wanted several times, is `input`.
pub(super) fn open(
    part: &PartitionSpec,
    input: Option<&File>,
    extra: &[ListedFile],
) -> Result<Box<dyn Source>> {
    let owners = Owners::of(part)?;
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for content in part.contents() {
        sources.push(Box::new(Shaped::new(open_one(&content, input)?, &content, owners.clone())));
    }
    let mut listed = Vec::new();
    for file in &part.file {
        listed.push(listed_file(file).with_context(|| format!("file '{}'", file.to))?);
    }
    listed.extend(extra.iter().cloned());
    sources.push(Box::new(FileList { files: listed, next: 0 }));
    Ok(Box::new(Chain { sources, at: 0 }))
}

fn open_one(content: &ContentSpec, input: Option<&File>) -> Result<Box<dyn Source>> {
    if content.from == "-" {
        let input = input.ok_or_else(|| invalid("standard input is not open"))?;
        let mut again = input.try_clone().context("Could not read standard input again")?;
        again.seek(SeekFrom::Start(0)).context("Could not read standard input again")?;
        return tar(Box::new(again));
    }
    let path = Path::new(&content.from);
    if path.is_dir() {
        return Ok(Box::new(DirectorySource::new(path)));
    }
    let file = File::open(path).with_context(|| format!("Could not open '{}'", content.from))?;
    tar(Box::new(file)).with_context(|| format!("Could not read '{}'", content.from))
}

fn tar(stream: Box<dyn Read + Send>) -> Result<Box<dyn Source>> {
    let plain = unpack(BufReader::with_capacity(BUFFER, stream))?;
    Ok(Box::new(TarSource::new(BufReader::with_capacity(BUFFER, plain))))
}

/// Sources one after the other.
struct Chain {
    sources: Vec<Box<dyn Source>>,
    at: usize,
}

impl Source for Chain {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        while let Some(source) = self.sources.get_mut(self.at) {
            if let Some(file) = source.next_file()? {
                return Ok(Some(file));
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.sources.get_mut(self.at).map_or(Ok(()), |source| source.content(sink))
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        self.sources.get_mut(self.at).map_or(Ok(0), |source| source.data_blocks(block_size))
    }
}

/// A part of a source, elsewhere, with other owners.
struct Shaped {
    inner: Box<dyn Source>,
    below: Vec<u8>,
    except: Vec<Vec<u8>>,
    to: Vec<u8>,
    owners: Arc<Owners>,
}

impl Shaped {
    fn new(inner: Box<dyn Source>, content: &ContentSpec, owners: Arc<Owners>) -> Self {
        Self {
            inner,
            below: clean(content.below.as_deref().unwrap_or_default()),
            except: content.except.iter().map(|path| clean(path)).collect(),
            to: clean(content.to.as_deref().unwrap_or_default()),
            owners,
        }
    }

    /// Where a path of the source goes; `None`: nowhere.
    fn place(&self, path: &[u8]) -> Option<Vec<u8>> {
        // The folder itself stays: something will be mounted on it.
        if self.except.iter().any(|out| inside(path, out).is_some_and(|rest| !rest.is_empty())) {
            return None;
        }
        let rest = inside(path, &self.below)?;
        Some(match (self.to.is_empty(), rest.is_empty()) {
            (true, _) => rest.to_vec(),
            (false, true) => self.to.clone(),
            (false, false) => [&self.to[..], b"/", rest].concat(),
        })
    }
}

/// What of `path` lies below `folder`; empty for the folder itself.
fn inside<'p>(path: &'p [u8], folder: &[u8]) -> Option<&'p [u8]> {
    if folder.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(folder)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

fn clean(path: &str) -> Vec<u8> {
    let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
    names.collect::<Vec<_>>().join("/").into_bytes()
}

impl Source for Shaped {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        while let Some(mut file) = self.inner.next_file()? {
            let Some(path) = self.place(&file.path) else { continue };
            if let Node::HardLink(target) = &file.node {
                let to = self.place(target).ok_or_else(|| left_out(&file.path, target))?;
                file.node = Node::HardLink(to);
            }
            file.path = path;
            self.owners.apply(&mut file);
            return Ok(Some(file));
        }
        Ok(None)
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.inner.content(sink)
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        self.inner.data_blocks(block_size)
    }
}

fn left_out(path: &[u8], target: &[u8]) -> Error {
    let (path, target) = (String::from_utf8_lossy(path), String::from_utf8_lossy(target));
    Error::new(
        Kind::Unsupported,
        format!("'{path}' is a hard link to '{target}', which goes to another filesystem"),
    )
}

/// A file that is not from a tree.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub(super) file: SourceFile,
    pub(super) content: Listed,
}

/// Where a listed file's content is.
#[derive(Clone, Debug)]
pub(super) enum Listed {
    Bytes(Arc<[u8]>),
    Host(PathBuf),
}

impl ListedFile {
    /// A file of root with these bytes, which takes the build's time.
    pub(super) fn new(path: &str, mode: u16, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let file = SourceFile {
            path: clean(path),
            node: Node::Regular(bytes.len() as u64),
            mode,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            xattrs: Vec::new(),
        };
        Self { file, content: Listed::Bytes(bytes) }
    }
}

impl ListedFile {
    /// Bytes of content.
    pub(super) fn length(&self) -> u64 {
        match self.file.node {
            Node::Regular(size) => size,
            _ => 0,
        }
    }
}

fn listed_file(spec: &FileSpec) -> Result<ListedFile> {
    let mut listed = ListedFile::new(&spec.to, 0o644, &[][..]);
    let given = [spec.from.is_some(), spec.text.is_some(), spec.link.is_some(), spec.directory];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(invalid("one of 'from', 'text', 'link' and 'directory' is needed"));
    }
    if listed.file.path.is_empty() {
        return Err(invalid("'to' is its path in the filesystem"));
    }
    if let Some(from) = &spec.from {
        host_file(&mut listed, Path::new(from))
            .with_context(|| format!("Could not read '{from}'"))?;
    } else if let Some(text) = &spec.text {
        listed.file.node = Node::Regular(text.len() as u64);
        listed.content = Listed::Bytes(text.as_bytes().into());
    } else if let Some(link) = &spec.link {
        listed.file.node = Node::Symlink(link.clone().into_bytes());
        listed.file.mode = 0o777;
    } else {
        listed.file.node = Node::Directory;
        listed.file.mode = 0o755;
    }
    if let Some(mode) = &spec.mode {
        listed.file.mode = parse_mode(mode)?;
    }
    if let Some(owner) = &spec.owner {
        (listed.file.uid, listed.file.gid) = parse_owner(owner)?;
    }
    Ok(listed)
}

fn host_file(listed: &mut ListedFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(invalid("it is no regular file"));
    }
    listed.file.node = Node::Regular(meta.len());
    listed.file.mode = (meta.mode() & 0o7777) as u16;
    listed.file.modified =
        Time { seconds: meta.mtime(), nanoseconds: u32::try_from(meta.mtime_nsec()).unwrap_or(0) };
    listed.content = Listed::Host(path.to_path_buf());
    Ok(())
}

/// Files one by one.
struct FileList {
    files: Vec<ListedFile>,
    next: usize,
}

impl FileList {
    fn current(&self) -> Option<&ListedFile> {
        self.files.get(self.next.checked_sub(1)?)
    }
}

impl Source for FileList {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        let file = self.files.get(self.next).map(|listed| listed.file.clone());
        self.next += usize::from(file.is_some());
        Ok(file)
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let Some(listed) = self.current() else { return Ok(()) };
        let Node::Regular(size) = listed.file.node else { return Ok(()) };
        match &listed.content {
            Listed::Bytes(bytes) if bytes.is_empty() => Ok(()),
            Listed::Bytes(bytes) => sink(0, bytes),
            Listed::Host(path) => stream(path, size, sink)
                .with_context(|| format!("Could not read '{}'", path.display())),
        }
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        let size = self.current().map(|listed| match listed.file.node {
            Node::Regular(size) => size,
            _ => 0,
        });
        Ok(size.unwrap_or(0).div_ceil(block_size.max(1)))
    }
}

fn stream(path: &Path, size: u64, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = PageBuffer::zeroed(BUFFER);
    let mut at = 0;
    while at < size {
        let want = (size - at).min(BUFFER as u64) as usize;
        let count = file.read(buffer.get_mut(..want).ok_or_else(errors::invalid)?)?;
        if count == 0 {
            break;
        }
        sink(at, buffer.get(..count).unwrap_or(&[]))?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(content: &ContentSpec) -> Shaped {
        Shaped::new(Box::new(FileList { files: Vec::new(), next: 0 }), content, Arc::default())
    }

    #[test]
    fn parts_of_a_tree_go_elsewhere() {
        let esp = shaped(&ContentSpec { below: Some("/boot/efi".into()), ..Default::default() });
        assert_eq!(esp.place(b"boot/efi/EFI/x"), Some(b"EFI/x".to_vec()));
        assert_eq!(esp.place(b"boot/efi"), Some(Vec::new()));
        assert_eq!(esp.place(b"boot/efi2"), None);
        assert_eq!(esp.place(b"boot"), None);
        let root = shaped(&ContentSpec {
            except: vec!["boot/efi/".into()],
            to: Some("/mnt".into()),
            ..Default::default()
        });
        assert_eq!(root.place(b"boot/efi/x"), None);
        assert_eq!(root.place(b"boot/efi"), Some(b"mnt/boot/efi".to_vec()));
        assert_eq!(root.place(b""), Some(b"mnt".to_vec()));
    }
}

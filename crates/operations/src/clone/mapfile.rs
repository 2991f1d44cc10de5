//! ddrescue's map files: what of a disk was copied, and what could not be read.
//!
//! Lines that begin with `#` are comments; the first other line tells where the work is, every
//! further one a block: position, size and a letter (the manual of GNU ddrescue, "Mapfile
//! structure").

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use disksmith_disk::{Context, Error, Kind, Result};

use super::Reader;

/// A map file has at most so many blocks.
const BLOCKS_MAX: usize = 1 << 22;
/// The line of comment that tells which copy it is of.
const IDENTITY: &str = "# disksmith clone: ";

/// What is known of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// Not tried: free space, or not yet reached.
    Untried,
    /// Read in vain.
    Bad,
    /// Copied.
    Finished,
}

impl Status {
    fn letter(self) -> char {
        match self {
            Self::Untried => '?',
            Self::Bad => '-',
            Self::Finished => '+',
        }
    }
}

/// A map file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MapFile {
    /// Which copy it is of, if we wrote it.
    pub identity: Option<String>,
    /// Where the work is.
    pub position: u64,
    /// The whole disk, in order.
    pub blocks: Vec<(Range<u64>, Status)>,
}

impl MapFile {
    /// Of a copy of which everything before `done` is in the target.
    pub fn of_copy(reader: &Reader, done: u64, total: u64, identity: &str) -> Self {
        let mut marks: Vec<(Range<u64>, Status)> =
            reader.free().iter().map(|range| (range.clone(), Status::Untried)).collect();
        let bad = reader.bad().into_iter().filter(|range| range.start < done);
        marks.extend(bad.map(|range| (range, Status::Bad)));
        marks.sort_unstable_by_key(|(range, _)| range.start);
        let mut map =
            Self { identity: Some(identity.to_string()), position: done, blocks: Vec::new() };
        let mut at = 0;
        for (range, status) in marks {
            map.push(at..range.start.min(done), Status::Finished);
            map.push(range.start.max(at)..range.end.min(done), status);
            at = at.max(range.end.min(done));
        }
        map.push(at..done, Status::Finished);
        map.push(done..total, Status::Untried);
        map
    }

    fn push(&mut self, range: Range<u64>, status: Status) {
        if range.is_empty() {
            return;
        }
        match self.blocks.last_mut() {
            Some((last, known)) if *known == status && last.end == range.start => {
                last.end = range.end;
            }
            _ => self.blocks.push((range, status)),
        }
    }

    /// Bytes that it tells of.
    pub fn size(&self) -> u64 {
        self.blocks.last().map_or(0, |(range, _)| range.end)
    }

    /// Everything before this byte is done with: copied, bad, or free.
    pub fn resumable(&self) -> u64 {
        self.position
    }

    /// What could not be read.
    pub fn bad(&self) -> Vec<Range<u64>> {
        let bad = self.blocks.iter().filter(|(_, status)| *status == Status::Bad);
        bad.map(|(range, _)| range.clone()).collect()
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = String::from("# Mapfile. Created by disksmith\n");
        if let Some(identity) = &self.identity {
            let _ = writeln!(text, "{IDENTITY}{}", identity.replace('\n', " "));
        }
        let finished = self.position >= self.size();
        let state = if finished { '+' } else { '?' };
        let _ = writeln!(text, "# current_pos  current_status  current_pass");
        let _ = writeln!(text, "0x{:08X}     {state}               1", self.position);
        let _ = writeln!(text, "#      pos        size  status");
        for (range, status) in &self.blocks {
            let length = range.end - range.start;
            let _ = writeln!(text, "0x{:08X}  0x{length:08X}  {}", range.start, status.letter());
        }
        text
    }

    /// Reads a map file, ours or ddrescue's.
    pub fn parse(text: &str) -> Result<Self> {
        let bad =
            |line: usize| Error::new(Kind::Corrupt, format!("line {line} of the map file is bad"));
        let mut map = Self::default();
        let mut begun = false;
        for (number, line) in text.lines().enumerate() {
            if let Some(identity) = line.strip_prefix(IDENTITY) {
                map.identity = Some(identity.to_string());
            }
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let number_at = |index: usize| words.get(index).and_then(|word| parse_number(word));
            if !begun {
                map.position = number_at(0).ok_or_else(|| bad(number + 1))?;
                begun = true;
                continue;
            }
            let block = number_at(0).zip(number_at(1)).zip(words.get(2).copied());
            let Some(((start, length), letter)) = block else { return Err(bad(number + 1)) };
            let status = match letter {
                "+" => Status::Finished,
                "-" => Status::Bad,
                "?" | "*" | "/" => Status::Untried,
                _ => return Err(bad(number + 1)),
            };
            let end = start.checked_add(length).ok_or_else(|| bad(number + 1))?;
            if start != map.size() || map.blocks.len() >= BLOCKS_MAX {
                return Err(bad(number + 1));
            }
            map.push(start..end, status);
        }
        match begun {
            true => Ok(map),
            false => Err(Error::new(Kind::Corrupt, "the map file is empty")),
        }
    }

    /// Writes it in place of what is there, whole.
    pub fn write(&self, path: &Path) -> Result<()> {
        let attempt = || format!("Could not write the map file '{}'", path.display());
        let file = disksmith_host::NewFile::create(path, disksmith_host::OpenOptions::default())
            .with_context(attempt)?;
        use disksmith_disk::Disk;
        file.disk().write_at(self.to_text().as_bytes(), 0).with_context(attempt)?;
        file.publish().with_context(attempt)
    }
}

fn parse_number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use disksmith_disk::MemoryDisk;

    use super::*;

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let again: Arc<MemoryDisk> = Arc::new(MemoryDisk::new(1 << 20));
        let reader = Reader::new(again.clone())
            .without(vec![4096..8192, 100_000..200_000])
            .rescuing(again, vec![512..1024, 90_112..90_624]);
        let map = MapFile::of_copy(&reader, 131_072, 1 << 20, "x y");
        let text = map.to_text();
        assert_eq!(MapFile::parse(&text).unwrap(), map);
        assert_eq!(map.bad(), [512..1024, 90_112..90_624]);
        assert_eq!(map.blocks.first(), Some(&(0..512, Status::Finished)));
        assert_eq!(map.blocks.last(), Some(&(100_000..1 << 20, Status::Untried)));
        assert_eq!(map.size(), 1 << 20);
        assert_eq!(map.resumable(), 131_072);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "# only\n", "x\n", "0 + 1\n0 0x100 +\n0x200 1 +\n", "0 + 1\n0 1 x\n"] {
            assert!(MapFile::parse(text).is_err(), "{text}");
        }
    }
}

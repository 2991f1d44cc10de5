//! Several copies of the same bytes as one disk, with the options of QEMU's `quorum`: what enough
//! of them agree on counts.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Extent, Kind, Result, ZeroMode};
use disksmith_formats::Options;

/// More copies than this are an error in the options.
pub(crate) const CHILDREN_MOST: usize = 32;
const EIO: i32 = 5;

/// The copies, and how many of them must agree.
#[derive(Debug)]
pub(crate) struct QuorumDisk {
    children: Vec<Arc<dyn Disk>>,
    threshold: usize,
    size: u64,
}

impl QuorumDisk {
    pub(crate) fn new(children: Vec<Arc<dyn Disk>>, options: &Options) -> Result<Self> {
        let threshold = options.number("vote-threshold")?.unwrap_or(0);
        let Some(first) = children.first() else {
            return Err(invalid("Number of provided children must be 1 or more"));
        };
        if threshold == 0 {
            return Err(invalid("Parameter 'vote-threshold' expects a value >= 1"));
        }
        if threshold > children.len() as u64 {
            return Err(invalid("threshold may not exceed children count"));
        }
        let size = first.size();
        if children.iter().any(|child| child.size() != size) {
            return Err(Error::from_errno(EIO).context("Could not refresh total sector count"));
        }
        Ok(Self { children, threshold: threshold as usize, size })
    }

    /// Does the same to all copies; enough of them must manage.
    fn all(&self, change: impl Fn(&dyn Disk) -> Result<()>) -> Result<()> {
        let results: Vec<_> = self.children.iter().map(|child| change(&**child)).collect();
        let good = results.iter().filter(|result| result.is_ok()).count();
        match results.into_iter().find(Result::is_err) {
            Some(failed) if good < self.threshold => failed,
            _ => Ok(()),
        }
    }
}

fn invalid(text: &str) -> Error {
    Error::new(Kind::InvalidInput, text)
}

impl Disk for QuorumDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut answers: Vec<(Vec<u8>, usize)> = Vec::new();
        for child in &self.children {
            if child.read_at(buffer, offset).is_err() {
                continue;
            }
            match answers.iter_mut().find(|(bytes, _)| bytes == buffer) {
                Some((_, votes)) => *votes += 1,
                None => answers.push((buffer.to_vec(), 1)),
            }
        }
        let winner = answers.into_iter().max_by_key(|(_, votes)| *votes);
        match winner.filter(|(_, votes)| *votes >= self.threshold) {
            Some((bytes, _)) => {
                buffer.copy_from_slice(&bytes);
                Ok(())
            }
            None => Err(Error::from_errno(EIO)),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.all(|child| child.write_at(data, offset))
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.all(|child| child.write_zeroes(offset, length, mode))
    }

    /// What the copies read as afterwards might differ: nothing is given back.
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.all(|child| child.flush())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent::data(length.min(self.size.saturating_sub(offset)), offset))
    }

    fn read_only(&self) -> bool {
        self.children.iter().any(|child| child.read_only())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    #[test]
    fn most_of_the_copies_decide() {
        let copies: Vec<Arc<dyn Disk>> =
            (0..3).map(|_| Arc::new(MemoryDisk::new(4096)) as Arc<dyn Disk>).collect();
        let mut options = Options::new();
        options.set("vote-threshold", "2");
        let disk = QuorumDisk::new(copies.clone(), &options).unwrap();
        disk.write_at(&[7; 512], 512).unwrap();
        copies[1].write_at(&[9; 512], 512).unwrap();
        let mut sector = [0; 512];
        disk.read_at(&mut sector, 512).unwrap();
        assert_eq!(sector, [7; 512]);
        copies[2].write_at(&[8; 512], 512).unwrap();
        assert_eq!(disk.read_at(&mut sector, 512).unwrap_err().errno(), Some(EIO));
        options.set("vote-threshold", "4");
        assert!(QuorumDisk::new(copies, &options).is_err());
        assert!(QuorumDisk::new(Vec::new(), &options).is_err());
    }
}

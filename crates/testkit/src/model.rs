//! Guest data that names its origin, and what a guest may find after a cut.

const SECTOR: u64 = 512;

/// `length` bytes that tell in each 8 of them which write they come from and to which sector
/// they belong. `write` 0 is reserved for zeroes.
pub fn tagged(write: u32, offset: u64, length: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(length as usize);
    let mut at = offset;
    while at < offset + length {
        let tag = tag(write, at / SECTOR).to_le_bytes();
        // Odd offsets continue the pattern of their sector.
        let within = (at % 8) as usize;
        let step = (8 - within).min((offset + length - at) as usize);
        data.extend_from_slice(&tag[within..within + step]);
        at += step as u64;
    }
    data
}

fn tag(write: u32, sector: u64) -> u64 {
    u64::from(write) << 40 | (sector & 0xff_ffff_ffff)
}

/// A sector that holds what it must not.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which guest sector of 512 bytes.
    pub sector: u64,
    /// What was found, in words.
    pub found: String,
    /// Which writes would have been right (0 = zeroes).
    pub allowed: Vec<u32>,
}

/// Which writes each guest sector may show. Whole sectors only.
#[derive(Clone, Debug, Default)]
pub struct SectorModel {
    sectors: Vec<Sector>,
}

/// The states of a sector since the last durable one, in order. Each is a choice: after a
/// discard both the old content and zeroes are right.
type Sector = Vec<Vec<u32>>;

impl SectorModel {
    /// `size` bytes of zeroes.
    pub fn new(size: u64) -> Self {
        Self { sectors: vec![vec![vec![0]]; (size / SECTOR) as usize] }
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.len() as u64 * SECTOR
    }

    /// The guest wrote [`tagged`] data of number `write` (0: zeroes).
    pub fn write(&mut self, write: u32, offset: u64, length: u64) {
        for sector in self.range(offset / SECTOR, (offset + length).div_ceil(SECTOR)) {
            sector.push(vec![write]);
        }
    }

    /// The guest discarded a range: old content or zeroes.
    pub fn discard(&mut self, offset: u64, length: u64) {
        for sector in self.range(offset.div_ceil(SECTOR), (offset + length) / SECTOR) {
            let mut choice = last(sector).to_vec();
            choice.push(0);
            sector.push(choice);
        }
    }

    /// Everything written so far is durable: only the last state of each sector stays.
    pub fn flush(&mut self) {
        for sector in &mut self.sectors {
            *sector = vec![last(sector).to_vec()];
        }
    }

    /// The disk grew from `old` to `new` bytes: what is added reads as zero. What lay there
    /// before an earlier shrinking stays allowed until the next flush.
    pub fn grow(&mut self, old: u64, new: u64) {
        let count = (new / SECTOR) as usize;
        if self.sectors.len() < count {
            self.sectors.resize(count, vec![vec![0]]);
        }
        for sector in self.range(old / SECTOR, count as u64) {
            sector.push(vec![0]);
        }
    }

    /// The content becomes, at once or in parts, that of `other` (zeroes past its end).
    pub fn become_like(&mut self, other: &Self) {
        for (index, sector) in self.sectors.iter_mut().enumerate() {
            sector.push(other.sectors.get(index).map_or(vec![0], |s| last(s).to_vec()));
        }
    }

    /// Each sector is as it is or, in whole or in parts, as in `other`, which is at least as
    /// large: an operation failed.
    pub fn or_like(&mut self, other: &Self) {
        self.sectors.resize(other.sectors.len().max(self.sectors.len()), vec![vec![0]]);
        for (sector, then) in self.sectors.iter_mut().zip(&other.sectors) {
            let mut choice = last(sector).to_vec();
            choice.extend(last(then).iter().filter(|write| !last(sector).contains(write)));
            sector.push(choice);
        }
    }

    /// The content that a disk has now: the last state of each sector.
    pub fn content(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size() as usize);
        for (sector, states) in self.sectors.iter().enumerate() {
            match last(states).first().copied().unwrap_or(0) {
                0 => bytes.resize(bytes.len() + SECTOR as usize, 0),
                write => bytes.extend(tagged(write, sector as u64 * SECTOR, SECTOR)),
            }
        }
        bytes
    }

    fn range(&mut self, first: u64, end: u64) -> impl Iterator<Item = &mut Sector> {
        self.sectors.iter_mut().take(end as usize).skip(first as usize)
    }

    /// Holds a disk's content against the model: the first sector that must not be so.
    pub fn check(&self, content: &[u8]) -> Option<Violation> {
        for (sector, bytes) in content.chunks(SECTOR as usize).enumerate() {
            let allowed = self.sectors.get(sector)?;
            if !allowed.iter().flatten().any(|write| holds(bytes, *write, sector as u64)) {
                return Some(Violation {
                    sector: sector as u64,
                    found: origin(bytes),
                    allowed: allowed.concat(),
                });
            }
        }
        None
    }
}

fn last(states: &Sector) -> &[u32] {
    states.last().map_or(&[0], Vec::as_slice)
}

fn holds(bytes: &[u8], write: u32, sector: u64) -> bool {
    let wanted = if write == 0 { 0 } else { tag(write, sector) };
    // The disk's last sector may be cut short.
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_le_bytes(*word) == wanted)
        && rest == &wanted.to_le_bytes()[..rest.len()]
}

fn origin(bytes: &[u8]) -> String {
    let Some(first) = bytes.first_chunk::<8>() else { return "too little".into() };
    let uniform = bytes.chunks(8).all(|piece| piece == &first[..piece.len()]);
    let value = u64::from_le_bytes(*first);
    match (uniform, value) {
        (true, 0) => "zeroes".into(),
        (true, _) => format!("write {} of sector {}", value >> 40, value & 0xff_ffff_ffff),
        (false, _) => "a mixture".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_data_names_its_origin() {
        let mut model = SectorModel::new(2048);
        model.write(1, 0, 1024);
        model.flush();
        model.write(2, 512, 512);
        let mut disk = tagged(1, 0, 1024);
        disk.resize(2048, 0);
        assert!(model.check(&disk).is_none());
        disk[512..1024].copy_from_slice(&tagged(2, 512, 512));
        assert!(model.check(&disk).is_none());
        assert_eq!(model.content(), disk);
        disk[0..512].copy_from_slice(&tagged(2, 512, 512));
        let violation = model.check(&disk).unwrap();
        assert_eq!((violation.sector, violation.allowed.as_slice()), (0, &[1][..]));
        assert_eq!(violation.found, "write 2 of sector 1");
    }
}

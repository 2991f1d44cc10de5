//! Syslinux on an ext filesystem: `ldlinux.sys` with its map of sectors, and a boot sector that
//! knows its first one.
//!
//! The positions of fields follow from what the installer of syslinux 6.04 does to a disk, compared
//! byte by byte. In `ldlinux.sys` a *patch area* is found by its magic number; it points to an
//! *extended* one with the places of all tables. Sector numbers count from the start of the
//! partition; the loader adds the number in the boot sector's field of hidden sectors.

use disksmith_disk::{Context, Error, Kind, Result, bytes};

const SECTOR: usize = 512;
/// Before the patch area, and what all words of `ldlinux.sys` add up to.
const MAGIC: u32 = 0x3eb2_02fe;
/// The patch area begins at a multiple of 4 within this many bytes.
const SEARCHED: usize = 512;
/// Sectors for the auxiliary data vector, which follow the code.
const ADV_SECTORS: usize = 2;
/// The three words that frame an auxiliary data vector; the second is what its words add up to.
const ADV_WORDS: [u32; 3] = [0x5a2d_2fa5, 0xa304_1767, 0xdd28_bf64];
/// An entry of the map of sectors: a 64-bit number and a 16-bit count.
const EXTENT: usize = 10;
/// Sectors of an entry at the most: what firmware reads at once.
const EXTENT_MAX: u16 = 127;
/// `ldlinux.sys` is no longer than this.
const LENGTH_MAX: usize = 1 << 20;

/// The parts of syslinux that belong together.
#[derive(Clone, Debug)]
pub(in crate::build) struct Program {
    /// A boot sector without its numbers.
    pub(in crate::build) boot_sector: Vec<u8>,
    /// `ldlinux.sys` without its map, in whole sectors.
    pub(in crate::build) code: Vec<u8>,
}

/// Where the partition lies.
#[derive(Clone, Copy, Debug)]
pub(in crate::build) struct Whereabouts {
    pub(in crate::build) start_sector: u64,
    pub(in crate::build) sectors: u64,
}

impl Program {
    /// Takes both out of the installer, a program that carries them.
    pub(in crate::build) fn from_installer(program: &[u8]) -> Result<Self> {
        let attempt = "Could not take syslinux out of its installer";
        let boot = program
            .windows(SECTOR)
            .position(|bytes| {
                bytes.starts_with(&[0xeb, 0x58, 0x90])
                    && bytes.ends_with(&[0x55, 0xaa])
                    && bytes.get(3..11) == Some(b"SYSLINUX")
            })
            .ok_or_else(|| damaged("it holds no boot sector"))
            .context(attempt)?;
        // The code begins with a line of text; the patch area follows in the same sector.
        let code = program
            .windows(32)
            .position(|bytes| bytes.starts_with(b"\r\nSYSLINUX ") && patch_area(bytes).is_some())
            .ok_or_else(|| damaged("it holds no ldlinux.sys"))
            .context(attempt)?;
        let end = data_end(program).filter(|end| *end > code).unwrap_or(program.len());
        Self::new(program[boot..boot + SECTOR].to_vec(), &program[code..end.min(code + LENGTH_MAX)])
            .context(attempt)
    }

    /// From the files as they lie in a syslinux archive, or were installed before.
    pub(in crate::build) fn new(boot_sector: Vec<u8>, code: &[u8]) -> Result<Self> {
        if boot_sector.len() != SECTOR || !boot_sector.ends_with(&[0x55, 0xaa]) {
            return Err(damaged("the boot sector is none"));
        }
        let at = patch_area(code).ok_or_else(|| damaged("ldlinux.sys has no patch area"))?;
        // Installed before: what follows the code then is data of that installation.
        let installed = usize::from(bytes::le16(code, at + 8).unwrap_or(0)) * SECTOR;
        let length = if installed > 0 { installed.min(code.len()) } else { code.len() };
        let mut code = code[..length].to_vec();
        code.resize(code.len().next_multiple_of(SECTOR), 0);
        let program = Self { boot_sector, code };
        program.extended()?;
        Ok(program)
    }

    /// The bytes of the file before its map is known: the code and an empty data vector.
    pub(in crate::build) fn file(&self) -> Vec<u8> {
        let mut file = self.code.clone();
        for _ in 0..ADV_SECTORS {
            let mut adv = [0; SECTOR];
            adv[..4].copy_from_slice(&ADV_WORDS[0].to_le_bytes());
            adv[4..8].copy_from_slice(&ADV_WORDS[1].to_le_bytes());
            adv[SECTOR - 4..].copy_from_slice(&ADV_WORDS[2].to_le_bytes());
            file.extend_from_slice(&adv);
        }
        file
    }

    /// The code and the boot sector for a file that lies in these sectors (of the partition, one
    /// for each 512 bytes of [`file`](Self::file)), in that directory.
    pub(in crate::build) fn patched(
        &self,
        sectors: &[u64],
        directory: &str,
        place: Whereabouts,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let count = self.code.len() / SECTOR;
        let (first, rest) = match sectors.split_first() {
            Some(split) if sectors.len() == count + ADV_SECTORS => split,
            _ => return Err(damaged("ldlinux.sys does not lie where it should")),
        };
        let (area, extended) = self.extended()?;
        let mut code = self.code.clone();
        put(&mut code, area + 8, &(count as u16).to_le_bytes())?;
        put(&mut code, area + 10, &(ADV_SECTORS as u16).to_le_bytes())?;
        put(&mut code, area + 12, &((self.code.len() / 4) as u32).to_le_bytes())?;
        put(&mut code, area + 16, &[0; 4])?;
        let (loaded, adv) = rest.split_at(count - 1);
        let extents = extents(loaded);
        if extents.len() > extended.map_entries {
            return Err(damaged("ldlinux.sys lies in too many pieces"));
        }
        put(&mut code, extended.map, &vec![0; extended.map_entries * EXTENT])?;
        for (index, (sector, length)) in extents.into_iter().enumerate() {
            put(&mut code, extended.map + index * EXTENT, &sector.to_le_bytes())?;
            put(&mut code, extended.map + index * EXTENT + 8, &length.to_le_bytes())?;
        }
        for (index, sector) in adv.iter().enumerate() {
            put(&mut code, extended.adv + index * 8, &sector.to_le_bytes())?;
        }
        if directory.len() >= extended.directory_length {
            return Err(damaged("the name of its directory is too long"));
        }
        put(&mut code, extended.directory, &vec![0; extended.directory_length])?;
        put(&mut code, extended.directory, directory.as_bytes())?;
        put(&mut code, extended.subvolume, &vec![0; extended.subvolume_length])?;
        let word = |chunk: &[u8]| bytes::le32(chunk, 0).unwrap_or(0);
        let sum = code.chunks_exact(4).fold(MAGIC, |sum, chunk| sum.wrapping_sub(word(chunk)));
        put(&mut code, area + 16, &sum.to_le_bytes())?;
        Ok((code, self.boot_sector(*first, &extended, place)?))
    }

    /// The fields that FAT has there too: geometry, hidden sectors and length.
    fn boot_sector(&self, first: u64, extended: &Extended, place: Whereabouts) -> Result<Vec<u8>> {
        let mut sector = self.boot_sector.clone();
        put(&mut sector, 0x0b, &512u16.to_le_bytes())?;
        let short = u16::try_from(place.sectors).unwrap_or(0);
        put(&mut sector, 0x13, &short.to_le_bytes())?;
        put(&mut sector, 0x18, &63u16.to_le_bytes())?;
        put(&mut sector, 0x1a, &255u16.to_le_bytes())?;
        let hidden = u32::try_from(place.start_sector)
            .map_err(|_| damaged("the partition begins behind 2 TiB"))?;
        put(&mut sector, 0x1c, &hidden.to_le_bytes())?;
        let long = if short == 0 { u32::try_from(place.sectors).unwrap_or(u32::MAX) } else { 0 };
        put(&mut sector, 0x20, &long.to_le_bytes())?;
        let [low, high] = [first as u32, (first >> 32) as u32];
        put(&mut sector, extended.sector_low, &low.to_le_bytes())?;
        put(&mut sector, extended.sector_high, &high.to_le_bytes())?;
        Ok(sector)
    }

    /// The patch area's position, and what the extended one tells.
    fn extended(&self) -> Result<(usize, Extended)> {
        let code = &self.code;
        let area = patch_area(code).ok_or_else(|| damaged("ldlinux.sys has no patch area"))?;
        let at = usize::from(bytes::le16(code, area + 22).unwrap_or(0));
        let field = |index: usize| {
            bytes::le16(code, at + 2 * index)
                .map(usize::from)
                .ok_or_else(|| damaged("ldlinux.sys has no extended patch area"))
        };
        let extended = Extended {
            adv: field(0)?,
            directory: field(1)?,
            directory_length: field(2)?,
            subvolume: field(3)?,
            subvolume_length: field(4)?,
            map: field(5)?,
            map_entries: field(6)?,
            sector_low: field(7)?,
            sector_high: field(8)?,
        };
        let right = at > area
            && extended.map > area
            && extended.map_entries > 0
            && extended.sector_low < SECTOR - 4
            && extended.sector_high < SECTOR - 4;
        if right {
            Ok((area, extended))
        } else {
            Err(damaged("ldlinux.sys has no extended patch area"))
        }
    }
}

/// Offsets from the start of `ldlinux.sys`, the last two from that of the boot sector.
struct Extended {
    /// Two 64-bit sector numbers of the auxiliary data vector.
    adv: usize,
    directory: usize,
    directory_length: usize,
    subvolume: usize,
    subvolume_length: usize,
    map: usize,
    map_entries: usize,
    /// The two halves of the number of the first sector.
    sector_low: usize,
    sector_high: usize,
}

/// Where the patch area begins in the first sector.
fn patch_area(code: &[u8]) -> Option<usize> {
    (0..code.len().min(SEARCHED)).step_by(4).find(|at| bytes::le32(code, *at) == Some(MAGIC))
}

/// Where the data of an ELF program ends: behind its last section of data (type 1, writable).
fn data_end(program: &[u8]) -> Option<usize> {
    let table = usize::try_from(bytes::le64(program, 0x28)?).ok()?;
    let (size, count) = (bytes::le16(program, 0x3a)?, bytes::le16(program, 0x3c)?);
    if program.get(..5)? != [0x7f, b'E', b'L', b'F', 2] {
        return None;
    }
    let mut end = None;
    for index in 0..usize::from(count) {
        let at = table.checked_add(index.checked_mul(size.into())?)?;
        let (kind, flags) = (bytes::le32(program, at + 4)?, bytes::le64(program, at + 8)?);
        if kind == 1 && flags & 3 == 3 {
            let place =
                bytes::le64(program, at + 24)?.checked_add(bytes::le64(program, at + 32)?)?;
            end = end.max(usize::try_from(place).ok());
        }
    }
    end
}

/// Sectors in runs.
fn extents(sectors: &[u64]) -> Vec<(u64, u16)> {
    let mut runs: Vec<(u64, u16)> = Vec::new();
    for sector in sectors {
        match runs.last_mut() {
            Some((start, length))
                if *start + u64::from(*length) == *sector && *length < EXTENT_MAX =>
            {
                *length += 1;
            }
            _ => runs.push((*sector, 1)),
        }
    }
    runs
}

fn put(bytes: &mut [u8], at: usize, data: &[u8]) -> Result<()> {
    let end = at.checked_add(data.len());
    let place = end.and_then(|end| bytes.get_mut(at..end));
    place.ok_or_else(|| damaged("a field lies outside of ldlinux.sys"))?.copy_from_slice(data);
    Ok(())
}

fn damaged(what: &str) -> Error {
    Error::new(Kind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_joined_to_runs() {
        let sectors: Vec<u64> = (10..20).chain(30..31).chain(100..300).collect();
        assert_eq!(extents(&sectors), [(10, 10), (30, 1), (100, 127), (227, 73)]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Program::from_installer(b"nothing").is_err());
        assert!(Program::new(vec![0; 512], &[0; 4096]).is_err());
        let mut code = vec![0; 4096];
        code[24..28].copy_from_slice(&MAGIC.to_le_bytes());
        code[46..48].copy_from_slice(&4090u16.to_le_bytes());
        let mut boot = vec![0; 512];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(Program::new(boot, &code).is_err());
    }
}

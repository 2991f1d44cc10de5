//! Reading guest data.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use disksmith_codec::{Algorithm, Decompressor};
use disksmith_disk::{Context, Result};

use super::Qcow2;
use super::layout::{L2Entry, Shape};
use super::map::{Place, Run};
use super::quarantine::Token;
use super::util::{lock, read_padded};

/// Decompressed clusters that are kept for small reads, in bytes.
const UNPACKED_BUDGET: u64 = 8 << 20;
/// Compressed clusters that lie together are read together, up to this many bytes.
const PACKED_READ_MOST: u64 = 1 << 20;

/// One step of a read.
struct Piece {
    run: Run,
    guest: u64,
}

impl Qcow2 {
    /// Fills `buffer` from guest `offset` on, backing layers included. The range lies within
    /// the image.
    pub(super) fn read_guest(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (pieces, _token) = self.plan_read(offset, buffer.len() as u64)?;
        let mut rest = buffer;
        let mut at = 0;
        while let Some(piece) = pieces.get(at) {
            if let Place::Compressed(_) = piece.run.place {
                let packed = pieces.get(at..).unwrap_or_default();
                let packed = packed
                    .split(|p| !matches!(p.run.place, Place::Compressed(_)))
                    .next()
                    .unwrap_or_default();
                let length: u64 = packed.iter().map(|p| p.run.length).sum();
                let (part, left) = rest.split_at_mut(length as usize);
                self.read_packed(packed, part)?;
                at += packed.len();
                rest = left;
                continue;
            }
            let (part, left) = rest.split_at_mut(piece.run.length as usize);
            self.read_piece(piece, part)?;
            at += 1;
            rest = left;
        }
        Ok(())
    }

    /// Looks up the whole range under one lock. The token keeps what was found from being used
    /// for something else.
    fn plan_read(&self, offset: u64, length: u64) -> Result<(Vec<Piece>, Token)> {
        let mut meta = lock(&self.meta);
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < length {
            let guest = offset + done;
            let run = meta.run(guest, length - done)?;
            done += run.length;
            pieces.push(Piece { run, guest });
        }
        Ok((pieces, meta.quarantine.token()))
    }

    fn read_piece(&self, piece: &Piece, part: &mut [u8]) -> Result<()> {
        match piece.run.place {
            Place::Zero(_) | Place::Compressed(_) => {
                part.fill(0);
                Ok(())
            }
            Place::Absent => self.read_backing(part, piece.guest),
            Place::Data(host) => self.read_data(part, piece.guest, host),
        }
    }

    /// What the backing layer has at `offset`: zero past its end or without one.
    pub(super) fn read_backing(&self, part: &mut [u8], offset: u64) -> Result<()> {
        match self.backing_disk() {
            Some(backing) => {
                self.storage.announce("read_backing_aio");
                read_padded(&*backing, part, offset)
            }
            None => {
                part.fill(0);
                Ok(())
            }
        }
    }

    fn read_data(&self, part: &mut [u8], guest: u64, host: u64) -> Result<()> {
        let data = self.data_disk()?;
        self.storage.announce("read_aio");
        let Some(cipher) = &self.cipher else {
            return read_padded(&*data, part, host);
        };
        cipher.read(&*data, part, guest, host)
    }

    /// Reads compressed clusters that follow each other in the guest: the first and the last
    /// may be partial.
    fn read_packed(&self, pieces: &[Piece], out: &mut [u8]) -> Result<()> {
        let shape = lock(&self.meta).shape;
        let mut rest = out;
        let mut at = 0;
        while at < pieces.len() {
            let tail = pieces.get(at..).unwrap_or_default();
            let (start, length, count) = packed_span(tail, &shape);
            if self.copy_kept(tail, &shape, &mut rest) {
                at += 1;
                continue;
            }
            let mut packed = vec![0; length as usize];
            self.storage.announce("read_compressed");
            // The last sector may be cut short by the end of the file.
            read_padded(&*self.storage, &mut packed, start)?;
            for piece in tail.iter().take(count) {
                let (part, left) = rest.split_at_mut(piece.run.length as usize);
                self.unpack(piece, &shape, &packed, start, part)?;
                rest = left;
            }
            at += count;
        }
        Ok(())
    }

    /// Serves the first piece from what is kept, if it is.
    fn copy_kept(&self, pieces: &[Piece], shape: &Shape, rest: &mut &mut [u8]) -> bool {
        let Some(Piece { run: Run { place: Place::Compressed(entry), length }, guest }) =
            pieces.first()
        else {
            return false;
        };
        let Some(cluster) = self.unpacked.find(*entry) else { return false };
        let within = shape.within(*guest) as usize;
        let (part, left) = std::mem::take(rest).split_at_mut(*length as usize);
        part.copy_from_slice(cluster.get(within..within + part.len()).unwrap_or_default());
        *rest = left;
        true
    }

    fn unpack(
        &self,
        piece: &Piece,
        shape: &Shape,
        packed: &[u8],
        start: u64,
        part: &mut [u8],
    ) -> Result<()> {
        let Place::Compressed(entry) = piece.run.place else { return Ok(()) };
        let place = entry.compressed_range(shape);
        let from = (place.offset - start) as usize;
        let stream = packed.get(from..from + place.length as usize).unwrap_or_default();
        let cluster_size = shape.cluster_size() as usize;
        let attempt = || format!("compressed cluster at guest offset {}", shape.start(piece.guest));
        if part.len() == cluster_size {
            return self.unpacked.decompress(stream, part).with_context(attempt);
        }
        let within = shape.within(piece.guest) as usize;
        let mut cluster = vec![0; cluster_size];
        self.unpacked.decompress(stream, &mut cluster).with_context(attempt)?;
        let cluster = self.unpacked.keep(entry, cluster);
        part.copy_from_slice(cluster.get(within..within + part.len()).unwrap_or_default());
        Ok(())
    }
}

/// How many of `pieces` can be read at once: where from, how many bytes, how many pieces.
fn packed_span(pieces: &[Piece], shape: &Shape) -> (u64, u64, usize) {
    let (mut start, mut end, mut count) = (0, 0, 0);
    for piece in pieces {
        let Place::Compressed(entry) = piece.run.place else { break };
        let place = entry.compressed_range(shape);
        let (low, high) = (place.offset, place.offset + place.length);
        if count == 0 {
            (start, end) = (low, high);
        } else if low >= start
            && low <= end
            && high - start <= PACKED_READ_MOST.max(shape.cluster_size())
        {
            end = end.max(high);
        } else {
            break;
        }
        count += 1;
    }
    (start, end - start, count.max(1))
}

/// Decompressors at rest, and clusters that were decompressed lately.
pub(super) struct Unpacked {
    algorithm: Algorithm,
    limit: usize,
    idle: Mutex<Vec<Decompressor>>,
    clusters: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_entry: HashMap<u64, (Arc<Vec<u8>>, u64)>,
    clock: u64,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Unpacked {
    pub(super) fn new(algorithm: Algorithm, cluster_size: u64) -> Self {
        let limit = (UNPACKED_BUDGET / cluster_size).clamp(4, 1024) as usize;
        Self { algorithm, limit, idle: Mutex::default(), clusters: Mutex::default() }
    }

    fn decompress(&self, packed: &[u8], out: &mut [u8]) -> Result<()> {
        let idle = lock(&self.idle).pop();
        let mut decompressor = idle.unwrap_or_else(|| Decompressor::new(self.algorithm));
        let result = decompressor.decompress(packed, out);
        lock(&self.idle).push(decompressor);
        result
    }

    fn find(&self, entry: L2Entry) -> Option<Arc<Vec<u8>>> {
        let mut kept = lock(&self.clusters);
        kept.clock += 1;
        let clock = kept.clock;
        let (cluster, used) = kept.by_entry.get_mut(&entry.raw)?;
        *used = clock;
        Some(Arc::clone(cluster))
    }

    fn keep(&self, entry: L2Entry, cluster: Vec<u8>) -> Arc<Vec<u8>> {
        let cluster = Arc::new(cluster);
        let mut kept = lock(&self.clusters);
        if kept.by_entry.len() >= self.limit {
            let oldest = kept.by_entry.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(raw) = oldest.map(|(raw, _)| *raw) {
                kept.by_entry.remove(&raw);
            }
        }
        kept.clock += 1;
        let clock = kept.clock;
        kept.by_entry.insert(entry.raw, (Arc::clone(&cluster), clock));
        cluster
    }

    /// Forgets everything: packed space is about to be used again.
    pub(super) fn clear(&self) {
        lock(&self.clusters).by_entry.clear();
    }
}

//! The protocol's numbers and messages, as bytes. Source: the protocol description of the NBD
//! project, `doc/proto.md`. All numbers are big-endian.

use disksmith_disk::bytes::{be16, be32, be64};

/// "NBDMAGIC": the first thing a server says.
pub const GREETING: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": what a newstyle server says next, and each option begins with.
pub const OPTION: u64 = 0x4948_4156_454f_5054;
/// Each reply to an option begins with this.
pub const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Each request begins with this.
pub const REQUEST: u32 = 0x2560_9513;
/// A simple reply begins with this.
pub const SIMPLE_REPLY: u32 = 0x6744_6698;
/// A chunk of a structured reply begins with this.
pub const CHUNK: u32 = 0x668e_33ef;

/// Flags that both sides exchange first: fixed newstyle, no padding of zeroes.
pub const FIXED_NEWSTYLE: u16 = 1;
/// See [`FIXED_NEWSTYLE`].
pub const NO_ZEROES: u16 = 2;

/// Options of the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Opt {
    /// Chooses an export and starts transmission, without a reply of its own.
    ExportName = 1,
    /// Chooses an export and starts transmission.
    Go = 7,
    /// Asks for structured replies.
    StructuredReply = 8,
    /// Chooses what block status tells.
    SetMetaContext = 10,
}

/// Replies to options; errors have the highest bit set.
pub const REP_ACK: u32 = 1;
/// Information about the export.
pub const REP_INFO: u32 = 3;
/// A context that was chosen.
pub const REP_META_CONTEXT: u32 = 4;
/// The bit of errors.
pub const REP_ERROR: u32 = 1 << 31;
/// The option is not known.
pub const REP_UNSUPPORTED: u32 = REP_ERROR | 1;
/// There is no such export.
pub const REP_UNKNOWN_EXPORT: u32 = REP_ERROR | 6;

/// Information items of [`Opt::Go`].
pub const INFO_EXPORT: u16 = 0;
/// See [`INFO_EXPORT`].
pub const INFO_BLOCK_SIZE: u16 = 3;

/// What an export can do, from its flags.
pub mod can {
    /// Nothing but be read.
    pub const READ_ONLY: u16 = 1 << 1;
    /// Flush.
    pub const FLUSH: u16 = 1 << 2;
    /// Trim.
    pub const TRIM: u16 = 1 << 5;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 6;
}

/// Commands of the transmission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Command {
    /// Read.
    Read = 0,
    /// Write.
    Write = 1,
    /// Goodbye; there is no reply.
    Disconnect = 2,
    /// Make everything written durable.
    Flush = 3,
    /// The range is of no interest any more.
    Trim = 4,
    /// Zeroes without sending them.
    WriteZeroes = 6,
    /// What is where.
    BlockStatus = 7,
}

/// Flag of [`Command::WriteZeroes`]: storage stays reserved.
pub const FLAG_NO_HOLE: u16 = 2;
/// Flag of [`Command::BlockStatus`]: one extent is enough.
pub const FLAG_ONE: u16 = 8;

/// Flag of the last chunk of a reply.
pub const CHUNK_DONE: u16 = 1;
/// Chunk types.
pub const CHUNK_DATA: u16 = 1;
/// A run of zeroes of a read.
pub const CHUNK_HOLE: u16 = 2;
/// Extents of a context.
pub const CHUNK_STATUS: u16 = 5;
/// The bit of chunks that tell an error.
pub const CHUNK_ERROR: u16 = 1 << 15;

/// Bytes of a request, without what is written.
pub const REQUEST_LENGTH: usize = 28;

/// An option with its data.
pub fn option(option: Opt, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION.to_be_bytes().to_vec();
    bytes.extend((option as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The data of [`Opt::Go`]: the export, and that its block sizes are of interest.
pub fn go_data(export: &str) -> Vec<u8> {
    let mut bytes = string(export);
    bytes.extend(1u16.to_be_bytes());
    bytes.extend(INFO_BLOCK_SIZE.to_be_bytes());
    bytes
}

/// The data of [`Opt::SetMetaContext`].
pub fn context_data(export: &str, contexts: &[&str]) -> Vec<u8> {
    let mut bytes = string(export);
    bytes.extend((contexts.len() as u32).to_be_bytes());
    for context in contexts {
        bytes.extend(string(context));
    }
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A request.
pub fn request(
    command: Command,
    flags: u16,
    cookie: u64,
    offset: u64,
    length: u32,
) -> [u8; REQUEST_LENGTH] {
    let mut bytes = [0; REQUEST_LENGTH];
    bytes[..4].copy_from_slice(&REQUEST.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&(command as u16).to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The head of a reply to an option: option, type, length of its data.
pub fn option_reply(head: &[u8; 20]) -> Option<(u32, u32, u32)> {
    (be64(head, 0)? == OPTION_REPLY).then_some(())?;
    Some((be32(head, 8)?, be32(head, 12)?, be32(head, 16)?))
}

/// The head of a reply to a request, behind its magic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkHead {
    /// Flags; see [`CHUNK_DONE`].
    pub flags: u16,
    /// Type; see [`CHUNK_DATA`] and its like.
    pub kind: u16,
    /// That of the request.
    pub cookie: u64,
    /// Bytes that follow.
    pub length: u32,
}

impl ChunkHead {
    /// Reads what follows the magic of a chunk.
    pub fn parse(bytes: &[u8; 16]) -> Option<Self> {
        Some(Self {
            flags: be16(bytes, 0)?,
            kind: be16(bytes, 2)?,
            cookie: be64(bytes, 4)?,
            length: be32(bytes, 12)?,
        })
    }
}

/// The extents of a status chunk: its context, and length and flags of each.
pub fn extents(data: &[u8]) -> Option<(u32, Vec<(u32, u32)>)> {
    let context = be32(data, 0)?;
    let rest = data.get(4..)?;
    let pairs = rest.chunks_exact(8);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let list =
        pairs.map(|pair| Some((be32(pair, 0)?, be32(pair, 4)?))).collect::<Option<Vec<_>>>()?;
    Some((context, list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_described() {
        let bytes = request(Command::Read, 0, 7, 512, 1024);
        assert_eq!(bytes[..4], [0x25, 0x60, 0x95, 0x13]);
        assert_eq!((bytes[15], bytes[22], bytes[26]), (7, 2, 4));
        assert_eq!(option(Opt::Go, &[1])[8..], [0, 0, 0, 7, 0, 0, 0, 1, 1]);
        assert_eq!(go_data("e"), [0, 0, 0, 1, b'e', 0, 1, 0, 3]);
        assert_eq!(extents(&[0, 0, 0, 9, 0, 0, 2, 0, 0, 0, 0, 3]), Some((9, vec![(512, 3)])));
        assert_eq!(extents(&[0, 0, 0, 9, 0]), None);
    }
}

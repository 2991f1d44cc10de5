//! A blocking client: handshake, then one request at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use disksmith_disk::bytes::{be16, be32, be64};
use disksmith_disk::{Context, Error, Kind, Result};

use crate::wire::{self, ChunkHead, Command, Opt};
use crate::{Address, Endpoint};

/// Longest text, and so longest reply to an option, that is read.
const TEXT_MOST: u32 = 4096 + 64;
/// Most bytes that are moved by one request when the server does not say.
const PAYLOAD: u32 = 32 << 20;
/// Most bytes of extents that are read at once.
const EXTENTS_MOST: u32 = 1 << 20;

/// What a server says about an export.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// What it can do; see [`wire::can`].
    pub flags: u16,
    /// Requests begin and end at multiples of this.
    pub minimum: u32,
    /// Most bytes of a read or write.
    pub maximum: u32,
    /// Identifiers of the contexts that were asked for and are there, in that order.
    pub contexts: Vec<Option<u32>>,
}

/// Type and data of a reply to an option.
type Reply = (u32, Vec<u8>);

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// A connection in transmission.
pub struct Client {
    socket: Box<dyn Socket>,
    export: Export,
    structured: bool,
    cookie: u64,
    /// The conversation can no longer be followed.
    broken: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("export", &self.export).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects and chooses the export, with these contexts for [`status`](Self::status).
    ///
    /// # Errors
    /// `NotFound` for an export that is not there, `Unsupported` for servers of another age,
    /// `Io` for what the network says.
    pub fn connect(address: &Address, contexts: &[&str]) -> Result<Self> {
        let attempt = || format!("Failed to connect to '{}'", address.endpoint);
        let socket: Box<dyn Socket> = match &address.endpoint {
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).with_context(attempt)?),
            Endpoint::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).with_context(attempt)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        let mut client =
            Self { socket, export: Export::default(), structured: false, cookie: 0, broken: false };
        client.shake_hands(&address.export, contexts)?;
        Ok(client)
    }

    /// What the server said about the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Reads. The range lies within the export and is aligned.
    pub fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = buffer.len() as u32;
        self.send(Command::Read, 0, offset, length, &[])?;
        let mut seen = 0u64;
        self.replies(length, |kind, data| {
            seen += match kind {
                None => {
                    buffer.copy_from_slice(data);
                    u64::from(length)
                }
                Some(kind) => place(kind, data, buffer, offset)?,
            };
            Ok(())
        })?;
        match seen == u64::from(length) {
            true => Ok(()),
            false => Err(broken("it did not answer the whole read")),
        }
    }

    /// Writes.
    pub fn write(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.command(Command::Write, 0, offset, data.len() as u32, data)
    }

    /// A command that is answered by success or an error only.
    pub fn command(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Result<()> {
        self.send(command, flags, offset, length, data)?;
        self.replies(0, |_, _| Ok(()))
    }

    /// The first extent at `offset` in the context of that identifier: its length and flags.
    pub fn status(&mut self, context: u32, offset: u64, length: u32) -> Result<(u32, u32)> {
        self.send(Command::BlockStatus, wire::FLAG_ONE, offset, length, &[])?;
        let mut found = None;
        self.replies(0, |kind, data| {
            if kind == Some(wire::CHUNK_STATUS) {
                let (id, list) = wire::extents(data).ok_or_else(|| broken("a bad extent list"))?;
                if id == context {
                    found = list.first().copied();
                }
            }
            Ok(())
        })?;
        match found {
            Some((got, flags)) if got > 0 => Ok((got.min(length), flags)),
            _ => Err(broken("a block status without extents")),
        }
    }

    fn shake_hands(&mut self, export: &str, contexts: &[&str]) -> Result<()> {
        let greeting: [u8; 16] = self.take().context("Failed to read initial magic")?;
        if be64(&greeting, 0) != Some(wire::GREETING) {
            return Err(Error::new(Kind::Unsupported, "Bad initial magic received: no NBD server"));
        }
        if be64(&greeting, 8) != Some(wire::OPTION) {
            return Err(Error::new(Kind::Unsupported, "the NBD server speaks the old style"));
        }
        let theirs = u16::from_be_bytes(self.take()?);
        if theirs & wire::FIXED_NEWSTYLE == 0 {
            return Err(Error::new(
                Kind::Unsupported,
                "the NBD server does not know fixed newstyle",
            ));
        }
        let ours = theirs & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
        self.put(&u32::from(ours).to_be_bytes())?;
        self.structured = self.asks(Opt::StructuredReply, &[])?.is_some();
        if self.structured && !contexts.is_empty() {
            self.choose_contexts(export, contexts)?;
        }
        self.go(export, ours & wire::NO_ZEROES != 0)
    }

    fn choose_contexts(&mut self, export: &str, contexts: &[&str]) -> Result<()> {
        let mut ids = vec![None; contexts.len()];
        let data = wire::context_data(export, contexts);
        for (kind, data) in self.asks(Opt::SetMetaContext, &data)?.unwrap_or_default() {
            let name = data.get(4..).unwrap_or_default();
            let at = contexts.iter().position(|context| context.as_bytes() == name);
            if let (wire::REP_META_CONTEXT, Some(at), Some(id)) = (kind, at, be32(&data, 0)) {
                ids[at] = Some(id);
            }
        }
        self.export.contexts = ids;
        Ok(())
    }

    fn go(&mut self, export: &str, no_zeroes: bool) -> Result<()> {
        self.export.minimum = 1;
        self.export.maximum = PAYLOAD;
        let Some(replies) = self.asks(Opt::Go, &wire::go_data(export))? else {
            return self.go_the_old_way(export, no_zeroes);
        };
        let mut known = false;
        for (_, data) in replies.iter().filter(|(kind, _)| *kind == wire::REP_INFO) {
            match be16(data, 0) {
                Some(wire::INFO_EXPORT) => {
                    known = true;
                    self.export.size = be64(data, 2).unwrap_or(0);
                    self.export.flags = be16(data, 10).unwrap_or(0);
                }
                Some(wire::INFO_BLOCK_SIZE) => {
                    let minimum = be32(data, 2).unwrap_or(1);
                    if !minimum.is_power_of_two() || minimum > PAYLOAD {
                        return Err(broken("a minimum block size that is no power of two"));
                    }
                    self.export.minimum = minimum;
                    self.export.maximum = be32(data, 10).unwrap_or(PAYLOAD).clamp(minimum, PAYLOAD);
                }
                _ => {}
            }
        }
        match known {
            true => Ok(()),
            false => Err(broken("nothing about the export's size")),
        }
    }

    fn go_the_old_way(&mut self, export: &str, no_zeroes: bool) -> Result<()> {
        self.put(&wire::option(Opt::ExportName, export.as_bytes()))?;
        let head: [u8; 10] = self.take().map_err(|_| no_export(export))?;
        self.export.size = be64(&head, 0).unwrap_or(0);
        self.export.flags = be16(&head, 8).unwrap_or(0);
        if !no_zeroes {
            self.take::<124>()?;
        }
        Ok(())
    }

    /// Sends an option and collects the replies up to the end, as type and data. `None`: the
    /// server does not know it.
    fn asks(&mut self, option: Opt, data: &[u8]) -> Result<Option<Vec<Reply>>> {
        const REPLIES_MOST: usize = 1024;
        self.put(&wire::option(option, data))?;
        let mut replies = Vec::new();
        loop {
            let (_, kind, length) = wire::option_reply(&self.take()?)
                .filter(|(about, _, length)| *about == option as u32 && *length <= TEXT_MOST)
                .ok_or_else(|| broken("a reply that belongs to no option"))?;
            let data = self.take_many(length)?;
            match kind {
                wire::REP_ACK => return Ok(Some(replies)),
                wire::REP_UNSUPPORTED => return Ok(None),
                kind if kind & wire::REP_ERROR != 0 => return Err(refusal(kind, &data)),
                _ if replies.len() >= REPLIES_MOST => return Err(broken("replies without end")),
                _ => replies.push((kind, data)),
            }
        }
    }

    fn send(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Result<()> {
        if self.broken {
            return Err(Error::new(Kind::Io, "the connection to the NBD server has broken off"));
        }
        self.cookie += 1;
        // Until the reply is read whole, there is no telling what comes next.
        self.broken = true;
        self.put(&wire::request(command, flags, self.cookie, offset, length))?;
        self.put(data)
    }

    /// Reads the replies to the request just sent. `tell` gets each piece: without a type the
    /// data of a simple reply, else that of a chunk.
    fn replies(
        &mut self,
        simple_length: u32,
        mut tell: impl FnMut(Option<u16>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut failed = None;
        loop {
            let (done, errno) = match u32::from_be_bytes(self.take()?) {
                wire::SIMPLE_REPLY => {
                    let head: [u8; 12] = self.take()?;
                    self.check_cookie(be64(&head, 4))?;
                    let errno = be32(&head, 0).unwrap_or(0);
                    if errno == 0 && simple_length > 0 {
                        let data = self.take_many(simple_length)?;
                        tell(None, &data)?;
                    }
                    (true, errno)
                }
                wire::CHUNK if self.structured => {
                    let head =
                        ChunkHead::parse(&self.take()?).ok_or_else(|| broken("half a chunk"))?;
                    self.check_cookie(Some(head.cookie))?;
                    if head.length > PAYLOAD.max(EXTENTS_MOST) + 8 {
                        return Err(broken("a chunk that is too long"));
                    }
                    let data = self.take_many(head.length)?;
                    let errno = match head.kind & wire::CHUNK_ERROR {
                        0 => 0,
                        _ => be32(&data, 0).unwrap_or(0).max(1),
                    };
                    if errno == 0 && !data.is_empty() {
                        tell(Some(head.kind), &data)?;
                    }
                    (head.flags & wire::CHUNK_DONE != 0, errno)
                }
                _ => return Err(broken("something that is no reply")),
            };
            if errno != 0 {
                failed.get_or_insert_with(|| Error::from_errno(host_errno(errno)));
            }
            if done {
                self.broken = false;
                return failed.map_or(Ok(()), Err);
            }
        }
    }

    fn check_cookie(&self, cookie: Option<u64>) -> Result<()> {
        match cookie == Some(self.cookie) {
            true => Ok(()),
            false => Err(broken("a reply to another request")),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes).context("the NBD server ended the conversation")?;
        Ok(bytes)
    }

    fn take_many(&mut self, length: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let got = (&mut self.socket).take(length.into()).read_to_end(&mut bytes)?;
        match got == length as usize {
            true => Ok(bytes),
            false => Err(Error::new(Kind::Io, "the NBD server ended the conversation")),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("cannot send to the NBD server")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.broken {
            // A server that is gone needs no goodbye.
            drop(self.send(Command::Disconnect, 0, 0, 0, &[]));
        }
    }
}

/// Puts a chunk of a read where it belongs; how many bytes it had.
fn place(kind: u16, data: &[u8], buffer: &mut [u8], offset: u64) -> Result<u64> {
    let start = be64(data, 0).and_then(|at| at.checked_sub(offset));
    let length = match kind {
        wire::CHUNK_DATA => Some(data.len().saturating_sub(8) as u64),
        wire::CHUNK_HOLE => be32(data, 8).map(u64::from),
        _ => return Ok(0),
    };
    let bounds =
        start.zip(length).and_then(|(start, length)| Some((start, start.checked_add(length)?)));
    let target = bounds.and_then(|(start, end)| buffer.get_mut(start as usize..end as usize));
    let target = target.ok_or_else(|| broken("data from outside of the request"))?;
    match kind {
        wire::CHUNK_DATA => target.copy_from_slice(&data[8..]),
        _ => target.fill(0),
    }
    Ok(target.len() as u64)
}

/// The protocol's error numbers are Linux's, but for a few.
fn host_errno(errno: u32) -> i32 {
    const EINVAL: i32 = 22;
    match errno {
        1 | 5 | 12 | 22 | 28 | 75 | 95 | 108 => errno as i32,
        _ => EINVAL,
    }
}

fn refusal(kind: u32, data: &[u8]) -> Error {
    let text = String::from_utf8_lossy(data).into_owned();
    let error = match kind {
        wire::REP_UNKNOWN_EXPORT => Error::new(Kind::NotFound, "Requested export not available"),
        _ => Error::new(Kind::Refused, format!("the NBD server refused (error {})", kind & 0xff)),
    };
    if text.is_empty() { error } else { error.with_hint(format!("server reported: {text}")) }
}

fn no_export(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("the NBD server has no export '{name}'"))
}

fn broken(what: &str) -> Error {
    Error::new(Kind::Io, format!("the NBD server broke the protocol: {what}"))
}

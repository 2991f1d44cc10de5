//! Names of exports: `nbd://HOST:PORT/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and the older
//! `nbd:HOST:PORT:exportname=EXPORT`, `nbd:unix:PATH:exportname=EXPORT`.

use std::fmt;
use std::path::PathBuf;

use disksmith_disk::{Error, Kind, Result};

/// The port of NBD, as registered with IANA.
const PORT: u16 = 10809;

/// Where a server listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// A socket of the host.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

/// An export of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// The server.
    pub endpoint: Endpoint,
    /// The export; the empty name is the server's default.
    pub export: String,
}

impl Address {
    /// Reads a name.
    ///
    /// # Errors
    /// `InvalidInput` for what is no such name, `Unsupported` for the encrypted `nbds`.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(rest) = name.strip_prefix("nbd+unix://") {
            return Self::unix_uri(rest);
        }
        if let Some(rest) = name.strip_prefix("nbd://") {
            let (place, export) = rest.split_once('/').unwrap_or((rest, ""));
            let export = export.split('?').next().unwrap_or_default();
            return Ok(Self { endpoint: tcp(place)?, export: decoded(export)? });
        }
        if name.starts_with("nbds") {
            return Err(Error::new(Kind::Unsupported, "NBD over TLS is not known here"));
        }
        let rest = name.strip_prefix("nbd:").ok_or_else(|| invalid(name))?;
        let (place, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
        let endpoint = match place.strip_prefix("unix:") {
            Some(path) => Endpoint::Unix(path.into()),
            None => tcp(place)?,
        };
        Ok(Self { endpoint, export: export.to_string() })
    }

    fn unix_uri(rest: &str) -> Result<Self> {
        let (export, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let socket = pairs.find(|(name, _)| *name == "socket").map(|(_, path)| decoded(path));
        let socket = socket.transpose()?.ok_or_else(|| {
            Error::new(Kind::InvalidInput, "an nbd+unix address needs '?socket=PATH'")
        })?;
        let export = decoded(export.strip_prefix('/').unwrap_or(export))?;
        Ok(Self { endpoint: Endpoint::Unix(socket.into()), export })
    }
}

/// The name as QEMU shows it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, self.export.as_str()) {
            (Endpoint::Unix(path), "") => write!(f, "nbd+unix://?socket={}", path.display()),
            (Endpoint::Unix(path), export) => {
                write!(f, "nbd+unix:///{export}?socket={}", path.display())
            }
            (Endpoint::Tcp(host, port), "") => write!(f, "nbd://{host}:{port}"),
            (Endpoint::Tcp(host, port), export) => write!(f, "nbd://{host}:{port}/{export}"),
        }
    }
}

/// Where it is, for messages.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

fn tcp(place: &str) -> Result<Endpoint> {
    // An IPv6 address stands in brackets, and has colons of its own.
    let after_host = place.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match place[after_host..].rfind(':') {
        Some(colon) => (&place[..after_host + colon], &place[after_host + colon + 1..]),
        None => (place, ""),
    };
    let port = match port {
        "" => PORT,
        port => port.parse().map_err(|_| invalid(place))?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(Endpoint::Tcp(host.to_string(), port))
}

/// Percent signs in a URI stand before two hexadecimal digits of a byte.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| invalid(text))?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| invalid(text))
}

fn invalid(name: &str) -> Error {
    Error::new(Kind::InvalidInput, format!("'{name}' is no address of an NBD export"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds() {
        for (name, shown) in [
            ("nbd://h", "nbd://h:10809"),
            ("nbd://h:1/x", "nbd://h:1/x"),
            ("nbd://[::1]:2/", "nbd://::1:2"),
            ("nbd:h:7", "nbd://h:7"),
            ("nbd:h:7:exportname=e", "nbd://h:7/e"),
            ("nbd:unix:/s:exportname=e", "nbd+unix:///e?socket=/s"),
            ("nbd+unix:///a%20b?socket=/s%2fk", "nbd+unix:///a b?socket=/s/k"),
            ("nbd+unix://?socket=/s", "nbd+unix://?socket=/s"),
        ] {
            assert_eq!(Address::parse(name).unwrap().to_string(), shown, "{name}");
        }
        for name in ["nbd+unix:///x", "nbds://h", "nbd://h:x", "nbd+unix:///%zz?socket=/s", "x"] {
            assert!(Address::parse(name).is_err(), "{name}");
        }
    }
}

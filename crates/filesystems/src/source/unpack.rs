//! Packed streams.

use std::io::{BufRead, Read};

use disksmith_disk::{Context, Error, Kind, Result};

/// The content of a stream that may be packed with gzip, xz or zstd, told by its first bytes.
pub fn unpack(mut stream: impl BufRead + Send + 'static) -> Result<Box<dyn Read + Send>> {
    let start = stream.fill_buf().context("Could not read the stream")?;
    let begins = |magic: &[u8]| start.starts_with(magic);
    if begins(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if begins(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(stream)?));
    }
    if begins(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        return Ok(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)));
    }
    if begins(b"BZh") {
        return Err(Error::new(Kind::Unsupported, "the stream is packed with bzip2")
            .with_hint("Unpack it first: bunzip2 -c FILE | … -"));
    }
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
        let mut plain = Vec::new();
        unpack(Cursor::new(bytes)).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn every_packing_is_told_by_its_start() {
        let plain = b"plain".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        // Several members follow each other, as pigz and cat make them.
        assert_eq!(unpacked([gzip.clone(), gzip].concat()), plain.repeat(2));
        assert_eq!(unpacked(zstd::stream::encode_all(&plain[..], 1).unwrap()), plain);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        assert_eq!(unpacked(xz.finish().unwrap()), plain);
        assert_eq!(unpacked(plain.clone()), plain);
        assert!(unpack(Cursor::new(b"BZh9".to_vec())).is_err());
    }
}

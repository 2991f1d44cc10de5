//! The operands of dd(1).

use disksmith_open::Cache;

use crate::face::{Failure, usage};

/// What was asked for. Lengths and places are bytes, but for `count`, `skip` and `seek`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Operands {
    /// `None` = stdin.
    pub(super) input: Option<String>,
    /// `None` = stdout.
    pub(super) output: Option<String>,
    pub(super) input_block: u64,
    pub(super) output_block: u64,
    /// At most so much is copied.
    pub(super) limit: Option<u64>,
    /// Where reading begins.
    pub(super) from: u64,
    /// Where writing begins.
    pub(super) to: u64,
    pub(super) conv: Conv,
    pub(super) append: bool,
    pub(super) input_cache: Cache,
    pub(super) output_cache: Cache,
    pub(super) status: Status,
}

/// `conv=`, as far as it makes sense for disks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Conv {
    pub(super) notrunc: bool,
    pub(super) sparse: bool,
    pub(super) noerror: bool,
    /// The last block is filled up with zeroes.
    pub(super) sync: bool,
    /// The output must be new.
    pub(super) excl: bool,
    /// The output must be there.
    pub(super) nocreat: bool,
}

/// `status=`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Status {
    /// Records and bytes at the end.
    #[default]
    Default,
    /// Nothing but errors.
    None,
    /// Records only.
    NoTransfer,
    /// The bytes also now and then.
    Progress,
}

/// A number of blocks, or of bytes.
#[derive(Clone, Copy)]
struct Amount {
    number: u64,
    bytes: bool,
}

impl Amount {
    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        Ok(Self { number: number(name, text)?, bytes: text.contains('B') })
    }

    fn in_bytes(self, block: u64, counts_bytes: bool) -> u64 {
        match self.bytes || counts_bytes {
            true => self.number,
            false => self.number.saturating_mul(block),
        }
    }
}

#[derive(Default)]
struct Flags {
    count_bytes: bool,
    skip_bytes: bool,
    seek_bytes: bool,
    append: bool,
    direct: bool,
    sync: bool,
}

impl Flags {
    fn parse(&mut self, operand: &str, list: &str, input: bool) -> Result<(), Failure> {
        for word in list.split(',') {
            match word {
                "count_bytes" if input => self.count_bytes = true,
                "skip_bytes" if input => self.skip_bytes = true,
                "seek_bytes" if !input => self.seek_bytes = true,
                "append" if !input => self.append = true,
                "direct" => self.direct = true,
                "sync" | "dsync" => self.sync = true,
                // Blocks are always read whole, and access times and terminals are no matter of
                // disks.
                "fullblock" if input => {}
                "noatime" | "nocache" | "nonblock" | "noctty" => {}
                _ => return usage(format!("{operand}= does not know '{word}' here")),
            }
        }
        Ok(())
    }

    fn cache(&self) -> Cache {
        match (self.direct, self.sync) {
            (true, true) => Cache::DirectSync,
            (true, false) => Cache::None,
            (false, true) => Cache::WriteThrough,
            (false, false) => Cache::WriteBack,
        }
    }
}

impl Operands {
    /// Reads the operands.
    pub(super) fn parse(texts: &[String]) -> Result<Self, Failure> {
        let (mut input, mut output) = (None, None);
        let (mut both, mut input_block, mut output_block) = (None, None, None);
        let (mut count, mut skip, mut seek) = (None, None, None);
        let (mut iflag, mut oflag) = (Flags::default(), Flags::default());
        let (mut conv, mut status) = (Conv::default(), Status::Default);
        for text in texts {
            let Some((name, value)) = text.split_once('=') else {
                return usage(format!("unrecognized operand '{text}'; operands are name=value"));
            };
            let block = |text: &str| match number(name, text)? {
                0 => usage(format!("{name}= must be more than 0")),
                n if i64::try_from(n).is_err() => usage(format!("{name}={text} is too large")),
                n => Ok(Some(n)),
            };
            match name {
                "if" => input = Some(value.to_string()),
                "of" => output = Some(value.to_string()),
                "bs" => both = block(value)?,
                "ibs" => input_block = block(value)?,
                "obs" => output_block = block(value)?,
                "count" => count = Some(Amount::parse(name, value)?),
                "skip" | "iseek" => skip = Some(Amount::parse(name, value)?),
                "seek" | "oseek" => seek = Some(Amount::parse(name, value)?),
                "conv" => conv.parse(value)?,
                "iflag" => iflag.parse(name, value, true)?,
                "oflag" => oflag.parse(name, value, false)?,
                "status" => status = parse_status(value)?,
                _ => return usage(format!("unrecognized operand '{text}'")),
            }
        }
        let input_block = both.or(input_block).unwrap_or(512);
        let output_block = both.or(output_block).unwrap_or(512);
        let stream = |name: Option<String>| name.filter(|name| name != "-");
        Ok(Self {
            input: stream(input),
            output: stream(output),
            input_block,
            output_block,
            limit: count.map(|count| count.in_bytes(input_block, iflag.count_bytes)),
            from: skip.map_or(0, |skip| skip.in_bytes(input_block, iflag.skip_bytes)),
            to: seek.map_or(0, |seek| seek.in_bytes(output_block, oflag.seek_bytes)),
            conv,
            append: oflag.append,
            input_cache: iflag.cache(),
            output_cache: oflag.cache(),
            status,
        })
    }

    /// How many zeroes follow what was read: blocks are always read whole, so that only the last
    /// one can be short.
    pub(super) fn padding(&self, read: u64) -> u64 {
        match self.conv.sync {
            true => read.next_multiple_of(self.input_block) - read,
            false => 0,
        }
    }
}

impl Conv {
    fn parse(&mut self, list: &str) -> Result<(), Failure> {
        for word in list.split(',') {
            match word {
                "notrunc" => self.notrunc = true,
                "sparse" => self.sparse = true,
                "noerror" => self.noerror = true,
                "excl" => self.excl = true,
                "nocreat" => self.nocreat = true,
                "sync" => self.sync = true,
                // What ends well is durable anyway.
                "fsync" | "fdatasync" => {}
                _ => {
                    return usage(format!(
                        "conv= does not know '{word}': notrunc, sparse, fsync, fdatasync, noerror, sync, excl, nocreat"
                    ));
                }
            }
        }
        if self.excl && self.nocreat {
            return usage("conv=excl and conv=nocreat exclude each other");
        }
        Ok(())
    }
}

fn parse_status(text: &str) -> Result<Status, Failure> {
    Ok(match text {
        "none" => Status::None,
        "noxfer" => Status::NoTransfer,
        "progress" => Status::Progress,
        _ => return usage(format!("status= is none, noxfer or progress, not '{text}'")),
    })
}

/// A number with dd's suffixes; `x` multiplies: `2x80x18b`.
fn number(name: &str, text: &str) -> Result<u64, Failure> {
    let product = text.split('x').map(factor).try_fold(1u64, |all, one| all.checked_mul(one?));
    match product {
        Some(number) => Ok(number),
        None => {
            usage(format!("{name}= expects a number such as 512, 4K, 1MiB or 2x512, not '{text}'"))
        }
    }
}

fn factor(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let power = |letter: char| {
        "KMGTPE".find(letter.to_ascii_uppercase()).and_then(|at| u32::try_from(at + 1).ok())
    };
    let mut letters = suffix.chars();
    let unit = match (letters.next(), letters.as_str()) {
        (None | Some('c' | 'B'), "") => 1,
        (Some('w'), "") => 2,
        (Some('b' | 's'), "") => 512,
        (Some(letter), "" | "iB") => 1024u64.checked_pow(power(letter)?)?,
        (Some(letter), "B") => 1000u64.checked_pow(power(letter)?)?,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Operands, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        Operands::parse(&words)
    }

    #[test]
    fn numbers_have_the_suffixes_of_dd() {
        for (text, value) in [
            ("512", 512),
            ("3c", 3),
            ("3w", 6),
            ("3b", 1536),
            ("2k", 2048),
            ("2K", 2048),
            ("2kB", 2000),
            ("2KiB", 2048),
            ("1M", 1 << 20),
            ("1MB", 1_000_000),
            ("2x80x18b", 2 * 80 * 18 * 512),
            ("1G", 1 << 30),
        ] {
            assert_eq!(number("bs", text).ok(), Some(value), "{text}");
        }
        for text in ["", "x", "2x", "k", "1.5M", "-1", "1Q", "16E", "1kk"] {
            assert!(number("bs", text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_and_lengths_are_in_blocks_or_bytes() {
        let o = parse("if=a of=b bs=4K count=3 skip=1 seek=2").unwrap();
        assert_eq!((o.limit, o.from, o.to), (Some(12288), 4096, 8192));
        let o = parse("ibs=1K obs=2K count=3 skip=1 seek=2").unwrap();
        assert_eq!((o.limit, o.from, o.to), (Some(3072), 1024, 4096));
        let o = parse("count=3B skip=1KiB seek=2 oflag=seek_bytes").unwrap();
        assert_eq!((o.limit, o.from, o.to), (Some(3), 1024, 2));
        let o = parse("count=3 skip=4 iflag=count_bytes,skip_bytes,fullblock").unwrap();
        assert_eq!((o.limit, o.from), (Some(3), 4));
        assert_eq!((parse("if=- of=-").unwrap().input, parse("bs=1").unwrap().limit), (None, None));
        let o = parse("ibs=1K obs=2K conv=sync").unwrap();
        assert_eq!((o.padding(1), o.padding(1024), o.padding(0)), (1023, 0, 0));
        for wrong in
            ["bs=0", "if", "x=1", "conv=ebcdic", "status=loud", "iflag=append", "conv=excl,nocreat"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

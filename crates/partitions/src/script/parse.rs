//! Reading sfdisk scripts.

use disksmith_disk::{Error, Kind, Result, parse_size};

use super::{Amount, Dump, DumpPartition, json};

/// A dump has at most so many bytes: 8192 entries of 128 bytes each are a tenth of it.
const MAX_LENGTH: usize = 16 << 20;

/// Reads a dump: sfdisk's JSON when it starts with `{`, else its script, with named fields
/// (`start=2048, size=1G, type=L`) or the short form (`2048,1G,L,*`).
pub fn parse_dump(text: &str) -> Result<Dump> {
    if text.len() > MAX_LENGTH {
        return Err(Error::new(Kind::LimitExceeded, "a dump of more than 16 MiB"));
    }
    if text.trim_start().starts_with('{') {
        return json::parse(text);
    }
    let mut dump = Dump::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            parse_line(&mut dump, line).map_err(|e| e.context(format!("line {number}")))?;
        }
    }
    Ok(dump)
}

fn parse_line(dump: &mut Dump, line: &str) -> Result<()> {
    let before_field = line.split([',', '=', '"']).next().unwrap_or(line);
    let Some((name, _)) = before_field.split_once(':') else {
        dump.partitions.push(partition(line, None)?);
        return Ok(());
    };
    let behind = |name: &str| line.get(name.len() + 1..).unwrap_or("").trim();
    if header(dump, name.trim(), behind(name))? {
        return Ok(());
    }
    // The name of a device may have colons of its own.
    let (name, _) = before_field.rsplit_once(':').unwrap_or((name, ""));
    dump.partitions.push(partition(behind(name), trailing_number(name.trim()))?);
    Ok(())
}

/// True when `name` is the name of a header line.
fn header(dump: &mut Dump, name: &str, value: &str) -> Result<bool> {
    let number = || {
        value.parse::<u64>().map_err(|_| {
            Error::new(Kind::InvalidInput, format!("{name}: '{value}' is not a number"))
        })
    };
    let small = || {
        number().and_then(|n| {
            u32::try_from(n)
                .map_err(|_| Error::new(Kind::InvalidInput, format!("{name}: {n} is too large")))
        })
    };
    match name {
        "label" => dump.label = Some(value.to_string()),
        "label-id" => dump.id = Some(value.to_string()),
        "sector-size" => dump.sector_size = Some(small()?),
        "first-lba" => dump.first_lba = Some(number()?),
        "last-lba" => dump.last_lba = Some(number()?),
        "table-length" => dump.table_length = Some(small()?),
        "grain" => dump.grain = Some(parse_size(value)?),
        "unit" if value == "sectors" => {}
        "unit" => {
            return Err(Error::new(
                Kind::Unsupported,
                format!("the unit '{value}' (sectors are known)"),
            ));
        }
        "device" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// The partition number at the end of a device name: 5 of `disk.raw5`, 1 of `/dev/loop0p1`.
pub(super) fn trailing_number(name: &str) -> Option<u32> {
    let digits = name.chars().rev().take_while(char::is_ascii_digit).count();
    name.get(name.len() - digits..)?.parse().ok()
}

fn partition(text: &str, number: Option<u32>) -> Result<DumpPartition> {
    let mut p = DumpPartition { number, ..DumpPartition::default() };
    for (index, field) in fields(text)?.into_iter().enumerate() {
        let field = field.trim();
        match field.split_once('=') {
            Some((name, value)) => named(&mut p, name.trim(), value.trim())?,
            None if field == "bootable" => p.bootable = true,
            None => positional(&mut p, index, field)?,
        }
    }
    Ok(p)
}

/// Splits at commas (and semicolons) outside of quotes.
fn fields(text: &str) -> Result<Vec<&str>> {
    let mut quoted = false;
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' | ';' if !quoted => {
                parts.push(text.get(from..at).unwrap_or(""));
                from = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(Error::new(Kind::InvalidInput, "a quotation mark is not closed"));
    }
    parts.push(text.get(from..).unwrap_or(""));
    Ok(parts)
}

fn named(p: &mut DumpPartition, name: &str, value: &str) -> Result<()> {
    match name {
        "start" => p.start = amount(value)?,
        "size" => p.size = amount(value)?,
        "type" | "Id" => p.kind = Some(unquote(value)?),
        "uuid" => p.uuid = Some(unquote(value)?),
        "name" => p.name = unquote(value)?,
        "attrs" => p.attributes = unquote(value)?,
        _ => return Err(Error::new(Kind::InvalidInput, format!("'{name}' is not a known field"))),
    }
    Ok(())
}

fn positional(p: &mut DumpPartition, index: usize, field: &str) -> Result<()> {
    match (index, field) {
        (_, "") => {}
        (0, _) => p.start = amount(field)?,
        (1, _) => p.size = amount(field)?,
        (2, _) => p.kind = Some(unquote(field)?),
        (3, "*") => p.bootable = true,
        (3, "-") => {}
        _ => return Err(Error::new(Kind::InvalidInput, format!("'{field}' is not understood"))),
    }
    Ok(())
}

/// Digits are sectors, `+` is everything there is, anything else a size.
pub(super) fn amount(text: &str) -> Result<Option<Amount>> {
    if text.is_empty() || text == "+" || text == "-" {
        return Ok(None);
    }
    text.parse().map(Some)
}

/// Takes quotation marks away and turns `\x22` into what it stands for.
fn unquote(text: &str) -> Result<String> {
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = match after {
            [b'x', a, b, ..] if *first == b'\\' => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|d| u8::from_str_radix(d, 16).ok())
            }
            _ => None,
        };
        bytes.push(hex.unwrap_or(*first));
        rest = if hex.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::InvalidInput, format!("'{text}' is not valid UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let dump = parse_dump(
            "# comment\nlabel: gpt\nlabel-id: X\nfirst-lba: 34\ngrain: 1MiB\n\n\
             disk.raw5 : start=  2048, size= 100, type=L, name=\"a, \\x22b\\xc3\\xa9: c=d\", attrs=\"GUID:60,63\", bootable\n\
             ,1G,S,*\n  63 ; ; 83\nsize=+\ndevice: a:b\nusb:0-part7 : size=1\n",
        )
        .unwrap();
        assert_eq!(dump.label.as_deref(), Some("gpt"));
        assert_eq!((dump.first_lba, dump.grain), (Some(34), Some(1 << 20)));
        let [a, b, c, d, e] = &dump.partitions[..] else { panic!("{dump:?}") };
        assert_eq!((a.number, a.start), (Some(5), Some(Amount::Sectors(2048))));
        assert_eq!((a.name.as_str(), a.attributes.as_str()), ("a, \"bé: c=d", "GUID:60,63"));
        assert!(a.bootable && b.bootable);
        assert_eq!((b.start, b.size), (None, Some(Amount::Bytes(1 << 30))));
        assert_eq!(
            (c.start, c.size, c.kind.as_deref()),
            (Some(Amount::Sectors(63)), None, Some("83"))
        );
        assert_eq!(d, &DumpPartition::default());
        assert_eq!((e.number, e.size), (Some(7), Some(Amount::Sectors(1))));
        for bad in
            ["start=x", "name=\"a", "unit: cylinders", "1,2,3,4,5", "bogus=1", "first-lba: x"]
        {
            assert!(parse_dump(bad).is_err(), "{bad}");
        }
    }
}

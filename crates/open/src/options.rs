//! Option strings: `a=1,b=2`, a comma inside a value doubled.

use disksmith_disk::{Error, Kind, Result};
use disksmith_formats::Options;

/// Splits an option string into pairs. A name without `=` is `name=on`; `noname` stays as it
/// is written. `implied` names the key of a first value without `=` (`driver` …), if any.
pub fn parse_options(text: &str, implied: Option<&str>) -> Result<Options> {
    let mut options = Options::new();
    for (index, piece) in split(text).into_iter().enumerate() {
        match piece.split_once('=') {
            Some(("", _)) => {
                return Err(Error::new(Kind::InvalidInput, format!("Invalid parameter '{piece}'")));
            }
            Some((name, value)) => options.set(name, value),
            None if index == 0 && implied.is_some() => {
                options.set(implied.unwrap_or_default(), piece);
            }
            None if piece.is_empty() => {}
            None => options.set(&piece, "on"),
        }
    }
    Ok(options)
}

/// Splits at single commas; doubled ones become one.
fn split(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == ',' && letters.peek() == Some(&',') {
            letters.next();
        } else if letter == ',' {
            pieces.push(String::new());
            continue;
        }
        if let Some(last) = pieces.last_mut() {
            last.push(letter);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_double_inside_values() {
        let options = parse_options("a=1,b=x,,y,flag,a=2", None).unwrap();
        let pairs: Vec<_> = options.iter().collect();
        assert_eq!(pairs, [("a", "2"), ("b", "x,y"), ("flag", "on")]);
        assert_eq!(
            parse_options("qcow2,x=1", Some("driver")).unwrap().text("driver"),
            Some("qcow2")
        );
        assert!(parse_options("=1", None).is_err());
    }
}

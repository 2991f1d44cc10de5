//! The command line as getopt_long reads it: options and operands in any order, `--opt=value`,
//! unique abbreviations, bundled short options, `--` as the end of options.

use crate::face::{Failure, usage};

/// One option of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// The long name, without dashes; it is also the key of the parsed value.
    pub long: &'static str,
    /// The letter, or NUL.
    pub short: char,
    /// What its value is called in the help; empty = it takes none.
    pub value: &'static str,
    /// One line for the help; empty = accepted, but not shown.
    pub help: &'static str,
}

/// An option without a value.
pub(crate) const fn flag(short: char, long: &'static str, help: &'static str) -> Opt {
    Opt { long, short, value: "", help }
}

/// An option with a value.
pub(crate) const fn value(
    short: char,
    long: &'static str,
    value: &'static str,
    help: &'static str,
) -> Opt {
    Opt { long, short, value, help }
}

/// What a command line said.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    options: Vec<(&'static str, String)>,
    /// What is no option, in order.
    pub operands: Vec<String>,
}

impl Parsed {
    /// Whether the option was given.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The value given last.
    pub(crate) fn value(&self, long: &str) -> Option<String> {
        self.options.iter().rev().find(|(name, _)| *name == long).map(|(_, v)| v.clone())
    }

    /// All values, in order.
    pub(crate) fn all(&self, long: &str) -> Vec<String> {
        self.options.iter().filter(|(name, _)| *name == long).map(|(_, v)| v.clone()).collect()
    }

    /// Every option in the order given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.options.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// Reads `arguments` by `table`. Errors are worded as by getopt, without the program's name.
pub(crate) fn parse(table: &[&[Opt]], arguments: &[String]) -> Result<Parsed, Failure> {
    let mut parsed = Parsed::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.operands.extend(words.cloned());
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            long_option(table, long, &mut words, &mut parsed)?;
        } else if word.len() > 1 && word.starts_with('-') {
            short_options(table, &word[1..], &mut words, &mut parsed)?;
        } else {
            parsed.operands.push(word.clone());
        }
    }
    Ok(parsed)
}

fn long_option(
    table: &[&[Opt]],
    word: &str,
    words: &mut std::slice::Iter<'_, String>,
    parsed: &mut Parsed,
) -> Result<(), Failure> {
    let (name, given) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (word, None),
    };
    let all = || table.iter().flat_map(|part| part.iter()).filter(|opt| !opt.long.is_empty());
    let found: Vec<&Opt> = match all().find(|opt| opt.long == name) {
        Some(exact) => vec![exact],
        None => all().filter(|opt| opt.long.starts_with(name)).collect(),
    };
    let opt = match found.as_slice() {
        [opt] => opt,
        [] => return usage(format!("unrecognized option '--{name}'")),
        several => {
            let names: Vec<_> = several.iter().map(|opt| format!("'--{}'", opt.long)).collect();
            return usage(format!(
                "option '--{name}' is ambiguous; possibilities: {}",
                names.join(" ")
            ));
        }
    };
    let value = match (opt.value.is_empty(), given) {
        (true, Some(_)) => {
            return usage(format!("option '--{}' doesn't allow an argument", opt.long));
        }
        (true, None) => String::new(),
        (false, Some(value)) => value,
        (false, None) => match words.next() {
            Some(value) => value.clone(),
            None => return usage(format!("option '--{}' requires an argument", opt.long)),
        },
    };
    parsed.options.push((key(opt), value));
    Ok(())
}

fn short_options(
    table: &[&[Opt]],
    letters: &str,
    words: &mut std::slice::Iter<'_, String>,
    parsed: &mut Parsed,
) -> Result<(), Failure> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let found = table.iter().flat_map(|part| part.iter()).find(|opt| opt.short == letter);
        let Some(opt) = found else {
            return usage(format!("invalid option -- '{letter}'"));
        };
        if opt.value.is_empty() {
            parsed.options.push((key(opt), String::new()));
            continue;
        }
        let value = match (rest.as_str(), words.len()) {
            ("", 0) => return usage(format!("option requires an argument -- '{letter}'")),
            ("", _) => words.next().cloned().unwrap_or_default(),
            (glued, _) => glued.to_string(),
        };
        parsed.options.push((key(opt), value));
        break;
    }
    Ok(())
}

/// Hidden second spellings lead to the first one: their help is `=NAME`.
fn key(opt: &Opt) -> &'static str {
    opt.help.strip_prefix('=').unwrap_or(opt.long)
}

/// The help's list of options.
pub(crate) fn option_help(table: &[&[Opt]]) -> String {
    let mut text = String::new();
    for opt in table.iter().flat_map(|part| part.iter()) {
        if opt.help.is_empty() || opt.help.starts_with('=') {
            continue;
        }
        text += "  ";
        if opt.short != '\0' {
            text += &format!("-{}, ", opt.short);
        }
        text += &format!("--{}", opt.long);
        if !opt.value.is_empty() {
            text += &format!(" {}", opt.value);
        }
        text += &format!("\n     {}\n", opt.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[&[Opt]] = &[&[
        flag('q', "quiet", "say less"),
        value('f', "format", "FMT", "the format"),
        value('\0', "output", "HOW", "the form"),
        value('\0', "object", "DEF", "an object"),
        flag('\0', "source-image-opts", "=image-opts"),
    ]];

    fn read(words: &[&str]) -> Result<Parsed, String> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        parse(TABLE, &words).map_err(|failure| match failure {
            Failure::Usage(text) => text,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn options_and_operands_mix() {
        let parsed = read(&["a", "-qfraw", "b", "--out", "json", "--", "-q"]).unwrap();
        assert_eq!(parsed.operands, ["a", "b", "-q"]);
        assert_eq!(parsed.value("format").as_deref(), Some("raw"));
        assert_eq!(parsed.value("output").as_deref(), Some("json"));
        assert!(parsed.has("quiet"));
        assert!(read(&["--source-image-opts"]).unwrap().has("image-opts"));
    }

    #[test]
    fn errors_are_worded_as_getopt_words_them() {
        for (words, text) in [
            (&["--nope"][..], "unrecognized option '--nope'"),
            (&["-Z"], "invalid option -- 'Z'"),
            (&["-f"], "option requires an argument -- 'f'"),
            (&["--format"], "option '--format' requires an argument"),
            (&["--o", "x"], "option '--o' is ambiguous; possibilities: '--output' '--object'"),
            (&["--quiet=1"], "option '--quiet' doesn't allow an argument"),
        ] {
            assert_eq!(read(words).unwrap_err(), text);
        }
    }
}

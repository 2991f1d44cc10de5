//! Options of a format as data: one table makes parsing, checking and `-o help`.

use disksmith_disk::{Error, Kind, Result, parse_size};

/// What an option takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OptionKind {
    /// `on` or `off`.
    Flag,
    /// A whole number.
    Number,
    /// A size with a suffix.
    Size,
    /// Any text.
    Text,
}

/// One option of a format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OptionSpec {
    /// As written after `-o`.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// One line for `-o help`.
    pub help: &'static str,
    /// The value that is printed and used when none is given.
    pub default: Option<&'static str>,
}

impl OptionSpec {
    /// An option that is only named and checked, without help and default.
    pub const fn named(name: &'static str, kind: OptionKind) -> Self {
        Self { name, kind, help: "", default: None }
    }
}

/// Options as given by the user: `name=value` pairs, later ones win.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((name.to_string(), value)),
        }
    }

    /// Removes one and answers its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(n, _)| n == name)?;
        Some(self.pairs.remove(at).1)
    }

    /// The text given for `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `on` or `off` given for `name`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.text(name)
            .map(|value| match value {
                "on" | "yes" | "true" | "y" => Ok(true),
                "off" | "no" | "false" | "n" => Ok(false),
                _ => Err(invalid(format!("Parameter '{name}' expects 'on' or 'off'"))),
            })
            .transpose()
    }

    /// The size in bytes given for `name`.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        self.text(name)
            .map(|value| {
                parse_size(value).map_err(|_| {
                    invalid(format!("Parameter '{name}' expects a non-negative number below 2^64"))
                        .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.")
                })
            })
            .transpose()
    }

    /// The number given for `name`.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.text(name)
            .map(|value| {
                // Negative numbers wrap, as in QEMU: far out of any option's range.
                let parsed = match value.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).ok(),
                    None => {
                        value.parse().ok().or_else(|| value.parse().ok().map(i64::cast_unsigned))
                    }
                };
                parsed.ok_or_else(|| invalid(format!("Parameter '{name}' expects a number")))
            })
            .transpose()
    }

    /// All pairs in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// No option given.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Refuses names that `known` does not list, and values of the wrong kind.
    pub fn check(&self, known: &[OptionSpec]) -> Result<()> {
        for (name, _) in self.iter() {
            let spec = known
                .iter()
                .find(|spec| spec.name == name)
                .ok_or_else(|| invalid(format!("Invalid parameter '{name}'")))?;
            match spec.kind {
                OptionKind::Flag => drop(self.flag(name)?),
                OptionKind::Number => drop(self.number(name)?),
                OptionKind::Size => drop(self.size(name)?),
                OptionKind::Text => {}
            }
        }
        Ok(())
    }
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

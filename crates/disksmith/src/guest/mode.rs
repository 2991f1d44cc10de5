//! Modes as chmod(1) reads them: `644`, `u+x,go-w`, `a=rX`.

use disksmith_disk::{Error, Kind, Result};

/// A change of permission bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ModeChange {
    /// These bits.
    Absolute(u16),
    /// One after the other.
    Symbolic(Vec<Clause>),
}

/// `ug+rw`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Clause {
    who: String,
    action: char,
    what: String,
}

impl ModeChange {
    /// Reads a mode.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::new(Kind::InvalidInput, format!("'{text}' is not a mode"))
                .with_hint("Modes are octal (644) or as in u+x,go-w.")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let bits = u16::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if bits <= 0o7777 { Ok(Self::Absolute(bits)) } else { Err(invalid()) };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let at = part.find(['+', '-', '=']).ok_or_else(invalid)?;
            let (who, rest) = part.split_at(at);
            let mut rest = rest;
            if who.chars().any(|c| !"ugoa".contains(c)) {
                return Err(invalid());
            }
            while let Some(action) = rest.chars().next() {
                let after = &rest[1..];
                let end = after.find(['+', '-', '=']).unwrap_or(after.len());
                let what = &after[..end];
                if what.chars().any(|c| !"rwxXstugo".contains(c)) {
                    return Err(invalid());
                }
                clauses.push(Clause { who: who.to_string(), action, what: what.to_string() });
                rest = &after[end..];
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The bits after the change.
    pub(crate) fn apply(&self, old: u16, directory: bool) -> u16 {
        let clauses = match self {
            // As chmod: an octal mode of up to three digits keeps a directory's set-id bits.
            Self::Absolute(bits) => {
                return if directory && *bits <= 0o777 { bits | old & 0o6000 } else { *bits };
            }
            Self::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(old, |mode, clause| clause.apply(mode, directory))
    }
}

impl Clause {
    fn apply(&self, mode: u16, directory: bool) -> u16 {
        let all = self.who.is_empty() || self.who.contains('a');
        let (mut bits, mut field) = (0, 0);
        for (letter, shift, set_id) in [('u', 6, 0o4000), ('g', 3, 0o2000), ('o', 0, 0o1000)] {
            if !all && !self.who.contains(letter) {
                continue;
            }
            field |= 0o7 << shift | if directory && letter != 'o' { 0 } else { set_id };
            for what in self.what.chars() {
                let triple = match what {
                    'r' => 4,
                    'w' => 2,
                    'x' => 1,
                    'X' if directory || mode & 0o111 != 0 => 1,
                    'u' => mode >> 6 & 7,
                    'g' => mode >> 3 & 7,
                    'o' => mode & 7,
                    _ => 0,
                };
                bits |= triple << shift;
                match (what, letter) {
                    ('s', 'u' | 'g') | ('t', 'o') => bits |= set_id,
                    _ => {}
                }
            }
        }
        // `+t` means the sticky bit whoever is named.
        if self.what.contains('t') && (all || self.who.is_empty()) {
            bits |= 0o1000;
        }
        match self.action {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !field | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        for (text, old, directory, new) in [
            ("644", 0o777, false, 0o644),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o755, false, 0o700),
            ("a=rX", 0o700, true, 0o555),
            ("a=rX", 0o600, false, 0o444),
            ("g=u,o-r", 0o744, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("+x-w", 0o644, false, 0o555),
            ("755", 0o2700, true, 0o2755),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(
                change.apply(old, directory),
                new,
                "{text}: {:o}",
                change.apply(old, directory)
            );
        }
        assert!(ModeChange::parse("9").is_err());
        assert!(ModeChange::parse("z+x").is_err());
    }
}

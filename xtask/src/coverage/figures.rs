//! What ran, by file: lines, and regions (stretches that run as a whole or not at all).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::root;

/// Line numbers and how often each ran.
pub(super) type Lines = BTreeMap<usize, u64>;
/// Where a region begins and ends: line, column, line, column, all from 1.
pub(super) type Span = [usize; 4];

/// By file, relative to the root; unit tests at the ends of files are left out.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) files: BTreeMap<String, File>,
}

#[derive(Default)]
pub(super) struct File {
    pub(super) text: Vec<String>,
    pub(super) lines: Lines,
    pub(super) regions: BTreeMap<Span, u64>,
}

impl Figures {
    pub(super) fn take_lines(&mut self, lcov: &str) {
        let mut current = None;
        for line in lcov.lines() {
            if let Some(path) = line.strip_prefix("SF:") {
                current = self.file(path);
            } else if let Some((number, count)) =
                line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
                && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
                && let Some(file) = &mut current
                && number <= file.text.len()
            {
                let sum = file.lines.entry(number).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }

    pub(super) fn take_regions(&mut self, json: &str) -> Result<(), String> {
        let export: Export = serde_json::from_str(json).map_err(|e| e.to_string())?;
        for function in export.data.iter().flat_map(|part| &part.functions) {
            for (span, count, path) in function.code() {
                let Some(file) = self.file(path) else { continue };
                if span[2] <= file.text.len() {
                    let sum = file.regions.entry(span).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str) -> Option<&mut File> {
        let name = path.strip_prefix(root().to_str()?)?.trim_start_matches('/');
        if !self.files.contains_key(name) {
            let text = std::fs::read_to_string(root().join(name)).ok()?;
            let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
            let text = code.map(String::from).collect();
            self.files.insert(name.to_string(), File { text, ..File::default() });
        }
        self.files.get_mut(name)
    }
}

impl File {
    /// Whether a region is where an error leaves: the `?` behind what failed, or a refusal.
    pub(super) fn is_error_branch(&self, span: Span) -> bool {
        let [first, from, last, to] = span;
        let line = self.text.get(first - 1).map_or("", String::as_str);
        let text = match first == last {
            true => line.get(from - 1..to - 1),
            false => line.get(from - 1..),
        };
        // A block's own text begins on the line after its brace.
        let inner = text.unwrap_or_default().trim_start_matches('{').trim();
        let begin = match inner.is_empty() && first < last {
            true => self.text[first].trim(),
            false => inner,
        };
        begin == "?" || begin.strip_prefix("return ").unwrap_or(begin).starts_with("Err(")
    }
}

#[derive(Deserialize)]
struct Export<'a> {
    #[serde(borrow)]
    data: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    functions: Vec<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    filenames: Vec<&'a str>,
    /// Span, count, number of the file, number of the expanded file, kind.
    regions: Vec<[u64; 8]>,
}

impl Function<'_> {
    /// Regions that are code: neither expansions of macros nor gaps.
    fn code(&self) -> impl Iterator<Item = (Span, u64, &str)> {
        self.regions.iter().filter(|region| region[7] == 0).filter_map(|region| {
            let [a, b, c, d, count, file, ..] = *region;
            let path = self.filenames.get(file as usize)?;
            Some(([a as usize, b as usize, c as usize, d as usize], count, *path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { text: text.lines().map(String::from).collect(), ..File::default() }
    }

    #[test]
    fn error_branches_are_told_by_their_text() {
        let file =
            file("let a = read()?;\nif bad {\n    return Err(x);\n}\nmatch y { n => Ok(1) }");
        assert!(file.is_error_branch([1, 15, 1, 16]));
        assert!(file.is_error_branch([2, 8, 4, 2]));
        assert!(!file.is_error_branch([1, 1, 1, 15]));
        assert!(!file.is_error_branch([5, 16, 5, 21]));
    }
}

//! Results as text and as JSON, in the shapes that qemu-img gives them.

pub(crate) mod info;
pub(crate) mod json;
pub(crate) mod options;
pub(crate) mod snapshots;

/// Text from an image, safe to show on a terminal: control characters are escaped.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect()
}

//! All suites. A new one is a file here with a function that answers a [`Suite`], and its line
//! in [`all`].

mod attach;
mod fat;
mod filesystems;
mod images;
mod scaling;
mod whole;

use super::case::Suite;

/// In the order of the page.
pub(super) fn all() -> Vec<Suite> {
    vec![
        images::suite(),
        filesystems::suite(),
        fat::suite(),
        whole::suite(),
        scaling::suite(),
        attach::suite(),
    ]
}

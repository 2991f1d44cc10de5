//! Making images: whoever asked is told.

use crate::kinds::KINDS;
use crate::sweep::{WHOLE, fail_each};

#[test]
fn what_could_not_be_made_is_not_called_made() {
    for kind in KINDS {
        for preallocation in ["off", "metadata", "falloc", "full"] {
            // A backing image and storage for all need subclusters.
            if kind.backing && preallocation != "off" && kind.name != "subclusters" {
                continue;
            }
            let name = format!("{}: made with preallocation={preallocation}", kind.name);
            let job = |files: crate::sweep::Files<'_>| kind.create(files, preallocation);
            fail_each(&kind.blanks(), &name, WHOLE, &job, &|run| run.told());
        }
    }
}

//! Inode numbers. FAT has none: a file's number is the place of its entry on the disk (in units of
//! 32 bytes), so that it is the same each time the volume is opened. While the volume is open, a
//! file keeps its number when its entry moves, and when its last name goes as long as somebody
//! holds it. exFAT does the same with its sets of entries.

use std::collections::HashMap;

use disksmith_disk::Result;

use super::layout::DirEntry;
use crate::errors;

/// The root directory's number: a place in the boot sector, where no entry lies.
pub(crate) const ROOT: u64 = 1;
/// Directories nested deeper are taken for a loop.
const DEPTH_MAX: usize = 4096;
/// Numbers for files whose place is the number of another one; no place is that large.
const EXTRA: u64 = 1 << 48;

/// What is known of files besides their entries.
#[derive(Debug)]
pub(crate) struct Identities<E = DirEntry> {
    by_number: HashMap<u64, Identity<E>>,
    /// Places whose file does not bear the place's number.
    by_place: HashMap<u64, u64>,
    extra: u64,
    /// The directory that a directory lies in, by numbers.
    parents: HashMap<u64, u64>,
}

/// A file that is held, that moved, or that has no name any more.
#[derive(Clone, Debug)]
struct Identity<E> {
    state: State<E>,
    holds: u64,
}

#[derive(Clone, Debug)]
enum State<E> {
    /// Its entry lies there.
    Place(u64),
    /// This was its entry.
    Unlinked(E),
}

/// Where a file's entry is to be found.
#[derive(Clone, Debug)]
pub(crate) enum Whereabouts<E = DirEntry> {
    /// On the disk, at this place.
    Place(u64),
    /// Nowhere: this is it.
    Unlinked(E),
}

impl<E> Default for Identities<E> {
    fn default() -> Self {
        Self {
            by_number: HashMap::new(),
            by_place: HashMap::new(),
            extra: 0,
            parents: HashMap::new(),
        }
    }
}

impl<E: Clone> Identities<E> {
    /// The number of the file whose entry lies at `place`.
    pub(crate) fn number_at(&mut self, place: u64) -> u64 {
        if let Some(number) = self.by_place.get(&place) {
            return *number;
        }
        match self.by_number.get(&place) {
            // Another file bears this number.
            Some(Identity { state: State::Unlinked(_), .. }) => self.extra_number(place),
            Some(Identity { state: State::Place(other), .. }) if *other != place => {
                self.extra_number(place)
            }
            _ => place,
        }
    }

    fn extra_number(&mut self, place: u64) -> u64 {
        self.extra += 1;
        let number = EXTRA + self.extra;
        self.by_place.insert(place, number);
        self.by_number.insert(number, Identity { state: State::Place(place), holds: 0 });
        number
    }

    pub(crate) fn find(&self, number: u64) -> Whereabouts<E> {
        match self.by_number.get(&number).map(|identity| &identity.state) {
            Some(State::Place(place)) => Whereabouts::Place(*place),
            Some(State::Unlinked(entry)) => Whereabouts::Unlinked(entry.clone()),
            None => Whereabouts::Place(number),
        }
    }

    /// The file's entry lies at `place` now.
    pub(crate) fn moved(&mut self, number: u64, place: u64) {
        if let Whereabouts::Place(old) = self.find(number) {
            self.by_place.remove(&old);
        }
        let identity = self
            .by_number
            .entry(number)
            .or_insert(Identity { state: State::Place(place), holds: 0 });
        identity.state = State::Place(place);
        if number == place {
            self.by_place.remove(&place);
        } else {
            self.by_place.insert(place, number);
        }
    }

    /// The file's last name went. True if it is held, so that it lives on.
    pub(crate) fn unlinked(&mut self, number: u64, entry: E) -> bool {
        if let Whereabouts::Place(place) = self.find(number) {
            self.by_place.remove(&place);
        }
        self.parents.remove(&number);
        match self.by_number.get_mut(&number) {
            Some(identity) if identity.holds > 0 => {
                identity.state = State::Unlinked(entry);
                true
            }
            _ => {
                self.by_number.remove(&number);
                false
            }
        }
    }

    /// Changes the entry of a file without a name.
    pub(crate) fn put_unlinked(&mut self, number: u64, entry: E) {
        if let Some(identity) = self.by_number.get_mut(&number) {
            identity.state = State::Unlinked(entry);
        }
    }

    pub(crate) fn hold(&mut self, number: u64) {
        let place = number;
        self.by_number
            .entry(number)
            .or_insert(Identity { state: State::Place(place), holds: 0 })
            .holds += 1;
    }

    /// Ends holds; answers the entry of a file that is to be freed now.
    pub(crate) fn release(&mut self, number: u64, count: u64) -> Option<E> {
        let identity = self.by_number.get_mut(&number)?;
        identity.holds = identity.holds.saturating_sub(count);
        if identity.holds > 0 {
            return None;
        }
        match identity.state.clone() {
            State::Unlinked(entry) => {
                self.by_number.remove(&number);
                Some(entry)
            }
            State::Place(place) => {
                if number == place {
                    self.by_number.remove(&number);
                }
                None
            }
        }
    }

    /// True if a file without a name is held.
    pub(crate) fn has_unlinked(&self) -> bool {
        self.by_number.values().any(|identity| matches!(identity.state, State::Unlinked(_)))
    }

    /// All files without names; they are forgotten.
    pub(crate) fn take_unlinked(&mut self) -> Vec<E> {
        let mut entries = Vec::new();
        self.by_number.retain(|_, identity| match &identity.state {
            State::Unlinked(entry) => {
                entries.push(entry.clone());
                false
            }
            State::Place(_) => true,
        });
        entries
    }

    pub(crate) fn set_parent(&mut self, directory: u64, parent: u64) {
        self.parents.insert(directory, parent);
    }

    /// The directory that a directory lies in; not known only if nobody came through there.
    pub(crate) fn parent(&self, directory: u64) -> Option<u64> {
        if directory == ROOT { Some(ROOT) } else { self.parents.get(&directory).copied() }
    }

    /// A directory, by its number, must not become part of itself.
    pub(crate) fn refuse_inside(&self, number: u64, directory: u64) -> Result<()> {
        let mut at = directory;
        for _ in 0..DEPTH_MAX {
            if at == number {
                return Err(errors::invalid());
            }
            if at == ROOT {
                return Ok(());
            }
            at = self.parent(at).ok_or_else(errors::stale)?;
        }
        Err(errors::too_many_symlinks())
    }
}

//! Whether what happened to one sector is explained by some order of the operations on it, each
//! at one instant between its begin and its end.

use std::collections::HashSet;

/// What an operation did to a sector. 0 stands for a sector of zeroes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// It holds that value after.
    Write(u64),
    /// It holds zeroes or what it held before.
    Discard,
    /// That was seen.
    Read(u64),
}

/// One operation on a sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Who did it: a worker does one thing at a time.
    pub(crate) worker: usize,
    /// Ticks of a clock that all workers share.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) action: Action,
}

/// One way in which all that has ended may have happened: what the sector holds, and which of
/// the operations still going on are done with (one bit for each worker).
type Way = (u64, u32);

/// The values that the sector may hold after all events; none: no order explains them. Answers
/// the event that cannot be explained instead.
pub(crate) fn outcomes(initial: &[u64], events: &[Event]) -> Result<Vec<u64>, Event> {
    let mut points: Vec<(u64, bool, Event)> = events
        .iter()
        .flat_map(|event| [(event.begin, false, *event), (event.end, true, *event)])
        .collect();
    points.sort_unstable_by_key(|(time, ..)| *time);
    let mut pending: [Option<Action>; 32] = [None; 32];
    let mut ways: HashSet<Way> = initial.iter().map(|value| (*value, 0)).collect();
    for (_, ends, event) in points {
        match ends {
            false => pending[event.worker] = Some(event.action),
            true => {
                ways = finish(&ways, &pending, event.worker);
                pending[event.worker] = None;
                if ways.is_empty() {
                    return Err(event);
                }
            }
        }
    }
    let mut values: Vec<u64> = ways.into_iter().map(|(value, _)| value).collect();
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

/// All ways in which a worker's operation is done by now; others' come before it where needed.
fn finish(ways: &HashSet<Way>, pending: &[Option<Action>; 32], worker: usize) -> HashSet<Way> {
    let mut open: Vec<Way> = ways.iter().copied().collect();
    let (mut seen, mut done) = (ways.clone(), HashSet::new());
    while let Some((value, mask)) = open.pop() {
        if mask & (1 << worker) != 0 {
            done.insert((value, mask & !(1 << worker)));
            continue;
        }
        for (index, action) in pending.iter().enumerate() {
            let Some(action) = action.filter(|_| mask & (1 << index) == 0) else { continue };
            let mut follow = |value| {
                let way = (value, mask | 1 << index);
                if seen.insert(way) {
                    open.push(way);
                }
            };
            match action {
                Action::Write(new) => follow(new),
                Action::Read(found) if found == value => follow(value),
                Action::Read(_) => {}
                Action::Discard => {
                    follow(value);
                    follow(0);
                }
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(worker: usize, begin: u64, end: u64, action: Action) -> Event {
        Event { worker, begin, end, action }
    }

    #[test]
    fn overlapping_writes_go_either_way_but_only_one_way() {
        let writes = [event(0, 1, 5, Action::Write(7)), event(1, 2, 6, Action::Write(8))];
        assert_eq!(outcomes(&[0], &writes).unwrap(), [7, 8]);
        let seen = |first, second| {
            let reads =
                [event(2, 7, 8, Action::Read(first)), event(3, 9, 10, Action::Read(second))];
            outcomes(&[0], &[&writes[..], &reads].concat())
        };
        assert_eq!(seen(7, 7).unwrap(), [7]);
        assert_eq!(seen(8, 8).unwrap(), [8]);
        assert!(seen(7, 8).is_err());
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_third_value_are_found() {
        let write = event(0, 1, 2, Action::Write(7));
        assert!(outcomes(&[5], &[write, event(1, 3, 4, Action::Read(5))]).is_err());
        assert!(outcomes(&[5], &[write, event(1, 3, 4, Action::Read(9))]).is_err());
        // During the write old and new may be seen, but not the old one after the new one.
        let write = event(0, 1, 9, Action::Write(7));
        let read = |begin, value| event(1, begin, begin + 1, Action::Read(value));
        assert!(outcomes(&[5], &[write, read(2, 5), read(4, 7)]).is_ok());
        assert!(outcomes(&[5], &[write, read(2, 7), read(4, 5)]).is_err());
    }

    #[test]
    fn a_discard_keeps_or_clears() {
        let discard = event(0, 1, 2, Action::Discard);
        assert_eq!(outcomes(&[5], &[discard]).unwrap(), [0, 5]);
        assert_eq!(outcomes(&[5], &[discard, event(1, 3, 4, Action::Read(0))]).unwrap(), [0]);
    }
}

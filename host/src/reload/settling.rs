//! When a changed file is read, decided from how it looked each time: no file, no clock.
//!
//! Editors write in pieces, empty a file before they fill it, or put another in its place. So what holds still for a
//! moment and is good is taken; what has a mistake is given a while longer to become good before it is refused.

/// Looks in a row that must find a changed file the same before what is wrong with it is said: with
/// [`SETTLE`](crate::follow::SETTLE) between them, a second.
const SURE: u32 = 10;

/// What is done after a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nothing: the files are as they were when they were last dealt with.
    Unchanged,
    /// Look again soon.
    Wait,
    /// Read. What is good is taken; what is not is refused only if this is `sure`, and waited for otherwise.
    Read {
        /// Whether it has been the same for long enough.
        sure: bool,
    },
}

/// What the looks so far have shown, of files in states `S`.
pub(super) struct Settling<S> {
    /// The state that was not dealt with yet, and how many further looks found it again.
    change: Option<(S, u32)>,
}

impl<S: PartialEq> Settling<S> {
    pub(super) const fn new() -> Self {
        Self { change: None }
    }

    /// Whether there is a change that was not dealt with.
    pub(super) const fn is_waiting(&self) -> bool {
        self.change.is_some()
    }

    /// A look finds the files in the state `now`; `known` is the one that was last dealt with.
    pub(super) fn look(&mut self, known: &S, now: S) -> Next {
        if now == *known {
            self.change = None;
            return Next::Unchanged;
        }
        match &mut self.change {
            Some((state, times)) if *state == now => {
                *times += 1;
                match *times {
                    1 => Next::Read { sure: false },
                    SURE.. => Next::Read { sure: true },
                    _ => Next::Wait,
                }
            }
            _ => {
                self.change = Some((now, 0));
                Next::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURELY: Next = Next::Read { sure: true };
    const MAYBE: Next = Next::Read { sure: false };

    /// What the looks come to that find these states, one after the other, when 0 was dealt with.
    fn looks(states: &[u32]) -> Vec<Next> {
        let mut settling = Settling::new();
        states.iter().map(|state| settling.look(&0, *state)).collect()
    }

    #[test]
    fn a_file_is_read_once_it_was_the_same_twice() {
        assert_eq!(looks(&[0, 1, 1]), [Next::Unchanged, Next::Wait, MAYBE]);
        assert_eq!(looks(&[1, 2, 3, 3]), [Next::Wait, Next::Wait, Next::Wait, MAYBE], "it was still being written");
    }

    #[test]
    fn a_mistake_is_said_only_when_it_stays() {
        let bad = looks(&[1; 12]);
        assert_eq!(bad[..2], [Next::Wait, MAYBE]);
        assert_eq!(bad[2..10], [Next::Wait; 8], "it is left alone meanwhile");
        assert_eq!(bad[10..], [SURELY; 2]);

        // Half of it was there for some time, and then the rest came.
        let mut written_in_pieces = vec![1; 8];
        written_in_pieces.extend([2, 2]);
        let read = looks(&written_in_pieces);
        assert!(!read.contains(&SURELY) && read.ends_with(&[MAYBE]), "{read:?}");
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        assert_eq!(looks(&[1, 0, 1]), [Next::Wait, Next::Unchanged, Next::Wait]);
    }
}

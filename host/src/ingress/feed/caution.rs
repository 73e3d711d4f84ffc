//! How many rows are read at once near one that cannot be read.
//!
//! A batch that fails for what is in it is read as its first half, and that as its half, down to one row: that is the one
//! that is put aside. Each part that can be read is stored before the next, and the next is twice as long, up to a whole
//! batch. So a row that cannot be read costs some statements more, a number that grows with the logarithm of the batch's
//! length, and a table without one costs none.

/// How many rows are read at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caution {
    /// Rows of a whole batch, at least one.
    batch: u16,
    /// Rows of a part; none: a whole batch.
    part: Option<u16>,
}

/// What is to be done after a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Read fewer.
    Fewer,
    /// It was one row alone: put it aside.
    PutAside,
}

impl Caution {
    /// None: whole batches are read.
    pub(super) fn none(batch: u16) -> Self {
        Self { batch: batch.max(1), part: None }
    }

    /// Rows to be read, whose places have to be known first; none: a whole batch, whatever it holds.
    pub(super) fn part(self) -> Option<u16> {
        self.part
    }

    /// A whole batch could not be read.
    pub(super) fn batch_failed(&mut self) {
        self.part = Some((self.batch / 2).max(1));
    }

    /// A part of so many rows could not be read.
    pub(super) fn part_failed(&mut self, rows: usize) -> Next {
        let half = u16::try_from(rows / 2).unwrap_or(self.batch);
        self.part = Some(half.max(1));
        if half == 0 { Next::PutAside } else { Next::Fewer }
    }

    /// What was to be read was.
    pub(super) fn went_well(&mut self) {
        self.part = self.part.map(|part| part.saturating_mul(2)).filter(|part| *part < self.batch);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came of reading rows of which some cannot be read.
    #[derive(Default)]
    struct Came {
        /// The rows in order, each with whether it was put aside.
        rows: Vec<(usize, bool)>,
        /// How often rows were asked for.
        reads: usize,
    }

    /// Reads `rows`, of which those that are `true` cannot be read.
    fn read(rows: &[bool], batch: u16) -> Came {
        let (mut caution, mut came) = (Caution::none(batch), Came::default());
        while came.rows.len() < rows.len() {
            let from = came.rows.len();
            let part = usize::from(caution.part().unwrap_or(batch));
            let asked = &rows[from..rows.len().min(from + part)];
            came.reads += 1;
            match (asked.contains(&true), caution.part()) {
                (false, _) => {
                    came.rows.extend((from..from + asked.len()).map(|row| (row, false)));
                    caution.went_well();
                }
                (true, None) => caution.batch_failed(),
                (true, Some(_)) => {
                    if caution.part_failed(asked.len()) == Next::PutAside {
                        came.rows.push((from, true));
                    }
                }
            }
        }
        came
    }

    proptest! {
        #[test]
        fn every_row_comes_once_in_order_and_those_are_put_aside_that_cannot_be_read(
            rows in prop::collection::vec(prop::bool::weighted(0.1), 0..300), batch in 1_u16..200
        ) {
            let came = read(&rows, batch);
            let expected: Vec<_> = rows.iter().copied().enumerate().collect();
            prop_assert_eq!(came.rows, expected);
            let unreadable = rows.iter().filter(|unreadable| **unreadable).count();
            let each = 5 * (batch.ilog2() as usize + 1) + 2;
            prop_assert!(came.reads <= rows.len().div_ceil(usize::from(batch)) + unreadable * each, "{}", came.reads);
        }

        #[test]
        fn rows_that_can_all_be_read_cost_no_read_more(count in 0_usize..300, batch in 1_u16..200) {
            prop_assert_eq!(read(&vec![false; count], batch).reads, count.div_ceil(usize::from(batch)));
        }
    }
}

//! Which of the server's errors lie in a row, rather than between the host and its table.
//!
//! A batch that fails with one of these fails with it for ever, until the row has changed; with any other the whole
//! table is to be tried again. The server's words are left out of what is made of it: they may quote the row
//! (`invalid input syntax for type integer: "…"`).

use std::fmt;

/// How the message begins by which the server says that a value is longer than the gigabyte it can hold in one piece
/// (`MaxAllocSize`). It has no code of its own, and is in no translation.
const TOO_LONG: &str = "invalid memory alloc request size";

/// Why a row cannot be read: the error's code, and what it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    code: String,
    meaning: &'static str,
}

impl Unreadable {
    /// Judges an error by its SQLSTATE (PostgreSQL documentation, "PostgreSQL Error Codes"). None: it does not lie in the
    /// data.
    ///
    /// Besides data exceptions (22) and limits (54), that is what code can raise that is run to write a value as JSON, a
    /// cast of its type: exceptions of its own (P0), a subquery with more rows than one (21), a domain's constraint (23).
    /// Damaged data (XX001) is a row's own as well. What code lacks is not (42: a function that is gone, a privilege),
    /// nor what the server lacks (53, 57, 58), nor the connection (08).
    pub(super) fn of(code: &str, message: &str) -> Option<Self> {
        let meaning = match (code.get(..2)?, code) {
            ("21", _) => "cardinality violation",
            ("22", _) => "data exception",
            ("23", _) => "integrity constraint violation",
            ("54", _) => "program limit exceeded",
            ("P0", _) => "an exception that a function raised",
            (_, "XX001") => "data corrupted",
            (_, "XX000") if message.starts_with(TOO_LONG) => "longer than 1 GB",
            _ => return None,
        };
        Some(Self { code: code.to_owned(), meaning })
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.meaning, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: &str, message: &str) -> Option<String> {
        Unreadable::of(code, message).map(|why| why.to_string())
    }

    #[test]
    fn what_lies_in_a_row_is_told_by_its_code_and_never_quotes_the_row() {
        let quoting = "invalid input syntax for type integer: \"a-secret\"";
        assert_eq!(says("22P02", quoting).unwrap(), "data exception (SQLSTATE 22P02)");
        assert_eq!(says("54000", "out of memory").unwrap(), "program limit exceeded (SQLSTATE 54000)");
        assert_eq!(says("P0001", "a-secret").unwrap(), "an exception that a function raised (SQLSTATE P0001)");
        let too_long = "invalid memory alloc request size 1073741824";
        assert_eq!(says("XX000", too_long).unwrap(), "longer than 1 GB (SQLSTATE XX000)");
    }

    #[test]
    fn what_ails_the_connection_the_server_or_the_table_is_no_rows_fault() {
        for code in ["08006", "53200", "57014", "57P01", "58030", "42703", "42501", "40001", "25006", "XX000", "", "2"]
        {
            assert_eq!(says(code, "cache lookup failed"), None, "{code}");
        }
    }
}

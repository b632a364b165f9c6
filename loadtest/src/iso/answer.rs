//! What field 39 of a reply means.

use iso8583::Dialect;
use iso8583::payment::{Refusal, edge_code};
use surety_protocol::{Code, CodeClass};

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Done.
    Approved,
    /// Final, and not done. Several of the engine's codes are told as one: this is the first of them.
    Declined(Code),
    /// Not done, and not decided either: the host's own refusal, or "not now".
    Refused(String),
    /// It may have been done.
    Unknown,
    /// No answer to what was asked.
    Nonsense,
}

/// Reads a code.
pub(super) fn read(code: &[u8], dialect: Dialect) -> Told {
    let is_of = |of: Code| edge_code(of).field_39(dialect) == code;
    let is_refusal = |of: Refusal| of.edge_code().field_39(dialect) == code;
    let mut declines = Code::ALL.iter().copied().filter(|of| of.class() == CodeClass::Decline && is_of(*of));
    if is_of(Code::Approved) {
        Told::Approved
    } else if is_refusal(Refusal::Fault) {
        Told::Unknown
    } else if is_of(Code::Partial) || code.is_empty() {
        // Nobody has said that a part will do.
        Told::Nonsense
    } else if let Some(decline) = declines.next().filter(|_| !is_refusal(Refusal::NotAvailable)) {
        Told::Declined(decline)
    } else {
        Told::Refused(format!("code {}", String::from_utf8_lossy(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_table_says() {
        let check =
            |code: &str, dialect, expect| assert_eq!(read(code.as_bytes(), dialect), expect, "{code}");
        let refused = |code: &str| Told::Refused(format!("code {code}"));
        for (old, new, expect) in [
            ("00", "000", Told::Approved),
            ("10", "002", Told::Nonsense),
            ("96", "909", Told::Unknown),
            ("61", "121", Told::Declined(Code::OverLimit)),
        ] {
            check(old, Dialect::V1987, expect.clone());
            check(new, Dialect::V1993, expect);
        }
        for code in ["91", "30", "63", "15"] {
            check(code, Dialect::V1987, refused(code));
        }
        check("907", Dialect::V1993, refused("907"));
        assert!(matches!(read(b"51", Dialect::V1987), Told::Declined(Code::Insufficient | Code::Ratio)));
        check("", Dialect::V1987, Told::Nonsense);
    }
}

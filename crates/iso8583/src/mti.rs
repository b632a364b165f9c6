//! The message type: version, class, function, origin (ISO 8583:1987, 4.1; ISO 8583:1993, 4.1).

use core::fmt;

/// A message type indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mti {
    /// Which edition of the standard.
    pub version: Version,
    /// What it is about.
    pub class: Class,
    /// Who has decided what.
    pub function: Function,
    /// The last digit: 0 acquirer, 2 issuer, 4 other; odd: the same, repeated.
    pub origin: u8,
}

/// The first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// ISO 8583:1987.
    V1987 = 0,
    /// ISO 8583:1993.
    V1993 = 1,
}

/// The second digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// May this be paid?
    Authorization = 1,
    /// This is paid.
    Financial = 2,
    /// Changes of files.
    File = 3,
    /// Takes something back.
    Reversal = 4,
    /// Totals.
    Reconciliation = 5,
    /// Free text.
    Administrative = 6,
    /// Fees.
    Fee = 7,
    /// The link itself.
    Network = 8,
}

/// The third digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Asks.
    Request = 0,
    /// Answers a request.
    RequestReply = 1,
    /// Tells what has happened.
    Advice = 2,
    /// Answers an advice.
    AdviceReply = 3,
    /// Tells, and wants no answer.
    Notification = 4,
}

impl Mti {
    /// Reads four digits.
    #[must_use]
    pub const fn from_digits(digits: [u8; 4]) -> Option<Self> {
        let version = match digits[0] {
            b'0' => Version::V1987,
            b'1' => Version::V1993,
            _ => return None,
        };
        let class = match digits[1] {
            b'1' => Class::Authorization,
            b'2' => Class::Financial,
            b'3' => Class::File,
            b'4' => Class::Reversal,
            b'5' => Class::Reconciliation,
            b'6' => Class::Administrative,
            b'7' => Class::Fee,
            b'8' => Class::Network,
            _ => return None,
        };
        let function = match digits[2] {
            b'0' => Function::Request,
            b'1' => Function::RequestReply,
            b'2' => Function::Advice,
            b'3' => Function::AdviceReply,
            b'4' => Function::Notification,
            _ => return None,
        };
        match digits[3] {
            b'0'..=b'5' => Some(Self { version, class, function, origin: digits[3] - b'0' }),
            _ => None,
        }
    }

    /// The four digits.
    #[must_use]
    pub const fn to_digits(self) -> [u8; 4] {
        [
            b'0' + self.version as u8,
            b'0' + self.class as u8,
            b'0' + self.function as u8,
            b'0' + self.origin % 10,
        ]
    }

    /// True for a message that was sent before.
    #[must_use]
    pub const fn is_repeat(self) -> bool {
        self.origin % 2 == 1
    }

    /// The same message sent again.
    #[must_use]
    pub const fn repeat(self) -> Self {
        Self { origin: self.origin | 1, ..self }
    }

    /// The type that answers it: the same for a message and its repeats. None for what is itself an answer or wants none.
    #[must_use]
    pub const fn reply(self) -> Option<Self> {
        let function = match self.function {
            Function::Request => Function::RequestReply,
            Function::Advice => Function::AdviceReply,
            Function::RequestReply | Function::AdviceReply | Function::Notification => return None,
        };
        Some(Self { function, origin: self.origin & !1, ..self })
    }
}

impl fmt::Display for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_digits().iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn types_read_back_and_have_their_replies() {
        let check = |text: &str, expect: Option<&str>| {
            let mti = Mti::from_digits(text.as_bytes().try_into().unwrap()).unwrap();
            assert_eq!(mti.to_string(), text);
            assert_eq!(mti.reply().map(|reply| reply.to_string()).as_deref(), expect, "{text}");
        };
        for (request, reply) in [
            ("0100", "0110"),
            ("0101", "0110"),
            ("0120", "0130"),
            ("0121", "0130"),
            ("0200", "0210"),
            ("0221", "0230"),
            ("0400", "0410"),
            ("0401", "0410"),
            ("0421", "0430"),
            ("0500", "0510"),
            ("0520", "0530"),
            ("0800", "0810"),
            ("1804", "1814"),
            ("1805", "1814"),
        ] {
            check(request, Some(reply));
            check(reply, None);
        }
        check("0140", None);
        for bad in [b"2100", b"0900", b"0000", b"0150", b"0106", b"01a0"] {
            assert_eq!(Mti::from_digits(*bad), None);
        }
    }
}

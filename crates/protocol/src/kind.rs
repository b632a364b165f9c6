//! What a record asks for or tells, and who may ask for it.

use core::fmt;
use core::ops::BitOr;

macro_rules! kinds {
    ($(#[$doc:meta] $name:ident = $value:literal, $text:literal, $origin:ident;)*) => {
        /// The kind of a record: a request, or something that the engine logs by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(#[$doc] $name = $value,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// Reads a kind byte.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Kind::$name),)* _ => None }
            }

            /// The name in small letters, as tools print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// Where records of this kind come from.
            #[must_use]
            pub const fn origin(self) -> Origin {
                match self { $(Kind::$name => Origin::$origin,)* }
            }
        }
    };
}

/// Who may send a kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The role `authorizer`.
    Authorizer,
    /// Every role.
    Reader,
    /// The roles `settler` and `authorizer`, with the right on the partition.
    Settler,
    /// The operator's `settler` and `admin`: facts of the chain.
    Chain,
    /// The operator's `admin`; for its own merchant directory a tenant's too.
    Admin,
    /// The engine itself; refused on the wire.
    Engine,
    /// The continuation of the record before it.
    Part,
}

kinds! {
    /// Locks collateral for a payment (rows 1 to 5).
    Lock = 1, "lock", Authorizer;
    /// Raises a lock to a total (row 6).
    Increase = 2, "increase", Authorizer;
    /// Lowers a lock to a total (row 7).
    Decrease = 3, "decrease", Authorizer;
    /// Claims a part of a lock (rows 8 to 10, 19).
    Capture = 4, "capture", Authorizer;
    /// Gives the rest of a lock back (rows 11, 12, 15).
    Release = 5, "release", Authorizer;
    /// Takes a capture back whole (rows 13, 14).
    Reverse = 6, "reverse", Authorizer;
    /// Gives a part of a capture back (row 21).
    Refund = 7, "refund", Authorizer;
    /// A capture that happened without asking (row 20).
    Advice = 8, "advice", Authorizer;
    /// Reads the state of an id; with `BURN` spends an unknown one (row 32).
    Lookup = 9, "lookup", Reader;
    /// The payer's asset is final (row 22).
    Settle = 16, "settle", Settler;
    /// The payer's asset failed (row 23).
    Consume = 17, "consume", Settler;
    /// A group of releases signed by the merchant; long.
    ReleaseGroup = 18, "release_group", Authorizer;
    /// A supplier's collateral is final on chain (row 26).
    Deposit = 32, "deposit", Chain;
    /// Collateral for all suppliers of a partition (row 27).
    Reward = 33, "reward", Chain;
    /// A supplier takes units out (row 28).
    Withdraw = 34, "withdraw", Chain;
    /// A batch is final on chain (row 25).
    BatchFinal = 35, "batch_final", Chain;
    /// A certificate was presented on chain (row 29).
    GuaranteeCalled = 36, "guarantee_called", Chain;
    /// A certificate was paid on chain (row 29).
    GuaranteePaid = 37, "guarantee_paid", Chain;
    /// A called certificate was dismissed on chain (row 29).
    GuaranteeDismissed = 38, "guarantee_dismissed", Chain;
    /// Collateral on chain is lower than it should be (row 30).
    Deficit = 39, "deficit", Chain;
    /// How much a partition may have at risk, and until when.
    RiskCap = 40, "risk_cap", Chain;
    /// A price of an asset in a quote currency.
    Price = 41, "price", Chain;
    /// Stops new locks of a partition (row 31).
    Freeze = 64, "freeze", Admin;
    /// Ends a freeze (row 31).
    Unfreeze = 65, "unfreeze", Admin;
    /// Sets a partition's policy; long.
    Policy = 66, "policy", Admin;
    /// Exposure was made good from outside (row 31).
    Cover = 67, "cover", Admin;
    /// Exposure was given up (row 31).
    WriteOff = 68, "write_off", Admin;
    /// Makes a partition.
    PartitionCreate = 69, "partition_create", Admin;
    /// Sets a tenant's quotas.
    TenantSet = 70, "tenant_set", Admin;
    /// Sets a tenant's rights on a partition.
    Grant = 71, "grant", Admin;
    /// Sets a merchant's payee and release key.
    MerchantSet = 72, "merchant_set", Admin;
    /// A partition's books say again what chain and merchants say: it lives on after a loss.
    Reconcile = 73, "reconcile", Admin;
    /// A lock's deadline has passed (row 18).
    Expire = 96, "expire", Engine;
    /// A capture's settle-by time has passed, and the policy settles (row 24).
    AutoSettle = 97, "auto_settle", Engine;
    /// A capture's settle-by time has passed, and the policy consumes (row 24).
    AutoConsume = 98, "auto_consume", Engine;
    /// A queued withdrawal was due and is paid (row 28).
    WithdrawPaid = 99, "withdraw_paid", Engine;
    /// A certificate can no longer be claimed: its collateral is free.
    Mature = 100, "mature", Engine;
    /// The engine started a new epoch.
    Start = 112, "start", Engine;
    /// The state hash after the record before.
    Checkpoint = 113, "checkpoint", Engine;
    /// What came after a record was lost, and the operator has accepted it: the engine goes on from a backup.
    Loss = 114, "loss", Engine;
    /// More of the long record before.
    Continuation = 127, "continuation", Part;
}

impl Kind {
    /// True for the kinds whose body is a [`crate::ChangeBody`].
    #[must_use]
    pub const fn changes_a_lock(self) -> bool {
        matches!(
            self,
            Self::Increase
                | Self::Decrease
                | Self::Capture
                | Self::Release
                | Self::Reverse
                | Self::Refund
                | Self::Advice
                | Self::Lookup
                | Self::Settle
                | Self::GuaranteeCalled
                | Self::GuaranteePaid
                | Self::GuaranteeDismissed
                | Self::Expire
                | Self::AutoSettle
                | Self::Mature
        )
    }

    /// True for the kinds that a linked chain may hold: those whose effects a ledger can put back.
    #[must_use]
    pub const fn may_be_linked(self) -> bool {
        matches!(
            self,
            Self::Lock
                | Self::Increase
                | Self::Decrease
                | Self::Capture
                | Self::Release
                | Self::Reverse
                | Self::Refund
                | Self::Settle
                | Self::Consume
        )
    }

    /// True for the kinds that a head and continuations make up.
    #[must_use]
    pub const fn is_long(self) -> bool {
        matches!(self, Self::Policy | Self::ReleaseGroup)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident($inner:ty) { $($(#[$bit_doc:meta])* $bit:ident = $value:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)*
            /// Every bit that has a meaning.
            pub const KNOWN: Self = Self(0 $(| $value)*);

            /// True if every bit of `other` is set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits that are not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }
    };
}

bits! {
    /// Marks on a record. The low byte belongs to the sender, the high byte to the engine.
    Flags(u16) {
        /// The next request of the frame belongs to the same chain: all or none.
        LINKED = 1;
        /// The last capture of the lock.
        FINAL = 2;
        /// Decline rather than capture a part.
        ALL_OR_NOTHING = 4;
        /// The lock asks for a certificate.
        CERTIFIED = 8;
        /// The lock is captured whole, at once and for the last time.
        SALE = 16;
        /// A look-up spends an id that it does not find.
        BURN = 32;
        /// The id of a change, or one that is burned, is good and remembered for as long as that of an advice, with its lock.
        LASTING = 64;
        /// Engine: a capture of an expired lock.
        LATE = 0x100;
        /// Engine: more was captured than had been approved.
        EXCESS = 0x200;
        /// Engine: a part or all of the amount became exposure.
        EXPOSED = 0x400;
    }
}

impl Flags {
    /// The bits that a sender may set.
    pub const SENDER: Self = Self(0x7f);

    /// True if the mark [`Flags::LASTING`] is there and means something to the kind.
    #[must_use]
    #[inline]
    pub const fn are_lasting(self, kind: Kind) -> bool {
        self.has(Self::LASTING)
            && matches!(
                kind,
                Kind::Increase
                    | Kind::Decrease
                    | Kind::Capture
                    | Kind::Release
                    | Kind::Reverse
                    | Kind::Refund
                    | Kind::Advice
                    | Kind::Lookup
            )
    }
}

bits! {
    /// What a client certificate allows, before any right on a partition.
    Roles(u8) {
        /// Sends payments.
        AUTHORIZER = 1;
        /// Tells what became of the payers' assets and of the chain.
        SETTLER = 2;
        /// Runs the engine.
        ADMIN = 4;
        /// Looks up and follows.
        READER = 8;
    }
}

bits! {
    /// What a tenant may do in a partition.
    Rights(u32) {
        /// Lock, capture, release and the like.
        AUTHORIZE = 1;
        /// Say that a payer's asset is final.
        SETTLE = 2;
        /// Say that a payer's asset failed.
        CONSUME = 4;
        /// Send advices, which cannot be declined.
        ADVISE = 8;
        /// Look up and follow.
        READ = 16;
    }
}

impl Roles {
    /// True if a caller with these roles may send records of this kind at all.
    #[must_use]
    pub const fn allow(self, kind: Kind) -> bool {
        let needed = match kind.origin() {
            Origin::Authorizer => Self::AUTHORIZER.0,
            Origin::Reader => Self::AUTHORIZER.0 | Self::READER.0 | Self::SETTLER.0 | Self::ADMIN.0,
            Origin::Settler => Self::AUTHORIZER.0 | Self::SETTLER.0,
            Origin::Chain => Self::SETTLER.0 | Self::ADMIN.0,
            Origin::Admin => Self::ADMIN.0,
            Origin::Engine | Origin::Part => 0,
        };
        self.0 & needed != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back_and_have_one_name_each() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(Kind::from_byte(*kind as u8), Some(*kind));
            assert!(Kind::ALL[..index].iter().all(|other| other.name() != kind.name()));
        }
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(255), None);
    }

    #[test]
    fn roles_allow_what_they_are_for() {
        let check = |roles: Roles, kind, expect| assert_eq!(roles.allow(kind), expect, "{roles:?} {kind}");
        check(Roles::AUTHORIZER, Kind::Lock, true);
        check(Roles::AUTHORIZER, Kind::Deposit, false);
        check(Roles::SETTLER, Kind::Deposit, true);
        check(Roles::SETTLER, Kind::Lock, false);
        check(Roles::SETTLER, Kind::Freeze, false);
        check(Roles::ADMIN, Kind::Freeze, true);
        check(Roles::ADMIN, Kind::Lock, false);
        check(Roles::READER, Kind::Lookup, true);
        check(Roles::READER, Kind::Release, false);
        for kind in Kind::ALL.iter().filter(|kind| matches!(kind.origin(), Origin::Engine | Origin::Part)) {
            check(Roles::KNOWN, *kind, false);
        }
    }
}

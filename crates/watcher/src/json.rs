//! How the words of the protocol are written in the journal: amounts and ids as text, since JSON's numbers do not hold them.

macro_rules! as_text {
    ($(#[$doc:meta])* $name:ident, $type:ty, $write:expr, $read:expr) => {
        $(#[$doc])*
        pub(crate) mod $name {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};
            #[allow(unused_imports)]
            use surety_protocol::{Id, PartitionHandle, ShardId};

            pub(crate) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> String = $write;
                to.serialize_str(&write(value))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let read: fn(&str) -> Option<$type> = $read;
                let text = String::deserialize(from)?;
                read(&text).ok_or_else(|| D::Error::custom(concat!("not of the form of: ", stringify!($name))))
            }
        }
    };
}

macro_rules! as_number {
    ($name:ident, $type:ident, $inner:ty) => {
        pub(crate) mod $name {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};
            use surety_protocol::$type;

            pub(crate) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                value.0.serialize(to)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                <$inner>::deserialize(from).map($type)
            }
        }
    };
}

as_text!(
    /// Decimal digits.
    amount, u128, |amount| amount.to_string(), |text| text.parse().ok()
);
as_text!(
    /// A UUID.
    id, Id, |id| id.to_string(), Id::parse
);
as_text!(
    /// Shard and number.
    partition, PartitionHandle, |partition| partition.to_string(), |text| {
        let (shard, number) = text.split_once(':')?;
        let number = number.parse().ok().filter(|number: &u64| number >> 48 == 0)?;
        Some(PartitionHandle::new(ShardId(shard.parse().ok()?), number))
    }
);
as_number!(tenant, TenantId, u32);
as_number!(asset, AssetId, u32);

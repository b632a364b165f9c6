//! Ids of requests, made of what the request itself carries: an application's key, and nothing that has to be remembered.

use axum::http::HeaderMap;
use surety_client::protocol::Id;

use crate::problem::Problem;

/// The header that names a request.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An application's name for one request: a UUIDv7, the same in every repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(Id);

impl Key {
    /// Reads the header.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        let problem = |detail: &'static str| Problem::parameter("Idempotency-Key", detail);
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(problem("Give exactly one Idempotency-Key: a UUIDv7, kept through every repeat."));
        };
        let id = value.to_str().ok().and_then(read_id);
        id.map(Self).ok_or_else(|| problem("The key is no UUIDv7, in its form with four hyphens."))
    }

    /// The id of a request that makes a lock, or that settles or consumes one: good for minutes.
    pub(crate) const fn id(self) -> Id {
        self.0
    }

    /// The id of any other change of a lock. It may come late, and lasts for days.
    pub(crate) const fn lasting(self) -> Id {
        self.0.lasting()
    }
}

/// Reads a lock's id, which is the key of the request that made it.
pub(crate) fn read_id(text: &str) -> Option<Id> {
    Id::parse(text).filter(|id| text.len() == 36 && id.is_uuid_v7())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use surety_client::protocol::Time;

    #[test]
    fn a_key_is_one_uuid_of_version_7() {
        let id = Id::from_parts(Time::from_secs(1_700_000_000), 42);
        let mut headers = HeaderMap::new();
        assert!(Key::of(&headers).is_err());
        for bad in ["", "x", &id.lasting().to_string(), &id.to_string().replace('-', "")] {
            headers.insert(IDEMPOTENCY_KEY, bad.parse().unwrap());
            assert!(Key::of(&headers).is_err(), "{bad}");
        }
        headers.insert(IDEMPOTENCY_KEY, id.to_string().to_uppercase().parse().unwrap());
        let key = Key::of(&headers).unwrap();
        assert_eq!((key.id(), key.lasting()), (id, id.lasting()));
        headers.append(IDEMPOTENCY_KEY, id.to_string().parse().unwrap());
        assert!(Key::of(&headers).is_err(), "two keys");
    }
}

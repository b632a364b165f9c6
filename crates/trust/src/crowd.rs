//! Connections counted by where they come from, so that one address does not take every place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Who is connected.
#[derive(Clone, Debug)]
pub struct Crowd {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

impl Crowd {
    /// So many places for each address.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// A place for a connection from there, until it is dropped. None if there are as many as may be.
    #[must_use]
    pub fn place(&self, from: IpAddr) -> Option<Place> {
        let from = network(from);
        let mut counts = self.counts.lock();
        let count = counts.entry(from).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place { crowd: self.clone(), from })
    }
}

/// A place for a connection.
#[derive(Debug)]
pub struct Place {
    crowd: Crowd,
    from: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// Whoever has one address of IPv6 has its whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_places() {
        let crowd = Crowd::new(2);
        let place = |address: &str| crowd.place(address.parse().unwrap());
        let (one, _two) = (place("10.0.0.1").unwrap(), place("::ffff:10.0.0.1").unwrap());
        assert!(place("10.0.0.1").is_none());
        let _other = place("10.0.0.2").unwrap();
        drop(one);
        let _again = place("10.0.0.1").unwrap();
        assert!(place("10.0.0.1").is_none());
        let _network = [place("2001:db8::1").unwrap(), place("2001:db8::2").unwrap()];
        assert!(place("2001:db8::3").is_none() && place("2001:db8:0:1::1").is_some());
        drop((_two, _other, _again, _network));
        assert!(crowd.counts.lock().is_empty());
    }
}

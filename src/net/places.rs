//! How many connections there may be at once: in all, and from one address, so that nobody takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::bucket;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    whole: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    whole: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// Whose share it counts for.
    address: Option<IpAddr>,
}

/// The address has its share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShareTaken;

impl Places {
    pub(super) fn new(whole: usize, each: usize) -> Self {
        Self { whole, each, taken: Mutex::default() }
    }

    /// One of all places, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.whole >= self.whole {
            return None;
        }
        taken.whole += 1;
        Some(Place { places: self.clone(), address: None })
    }
}

impl Place {
    /// Counts it for an address.
    pub(super) fn share(&mut self, address: IpAddr) -> Result<(), ShareTaken> {
        let address = bucket(address);
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.by_address.entry(address).or_default();
        if *count >= self.places.each {
            return Err(ShareTaken);
        }
        *count += 1;
        drop(taken);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.whole -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = taken.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&address);
                // A crowd that has gone leaves no room behind.
                if taken.by_address.capacity() > 4 * (taken.by_address.len() + 256) {
                    taken.by_address.shrink_to_fit();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t35_an_address_gets_its_share_and_not_all() {
        let places = Arc::new(Places::new(4, 2));
        let take = |address: &str| {
            let mut place = places.take()?;
            Some(place.share(address.parse().unwrap()).map(|()| place))
        };
        let _one = take("192.0.2.1").unwrap().unwrap();
        let two = take("192.0.2.1").unwrap().unwrap();
        assert!(take("::ffff:192.0.2.1").unwrap().is_err());
        let _v6 = take("2001:db8::1").unwrap().unwrap();
        let _same_64 = take("2001:db8::2").unwrap().unwrap();
        assert!(take("192.0.2.9").is_none(), "all are taken");
        drop(two);
        assert!(take("2001:db8::3").unwrap().is_err());
        let _again = take("192.0.2.1").unwrap().unwrap();
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let places = Arc::new(Places::new(10, 1));
        for number in 0..100_u32 {
            let mut place = places.take().unwrap();
            place.share(std::net::Ipv4Addr::from_bits(number).into()).unwrap();
        }
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.whole, taken.by_address.len()), (0, 0));
    }
}

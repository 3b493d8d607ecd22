//! Limit on the memory that requests' bodies take at once, in the whole process.
//!
//! Promises: bodies never take more than `server.max_held`, whatever callers send and before anything is proved. Memory
//! for a declared length is taken before a byte is read; a body without a length takes more as it grows. Large bodies
//! leave an eighth to small ones. No address takes more than half of what the others leave, so that there is always
//! something for the next one. A request's memory is given back when it ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::refuse;
use crate::model::{Refusal, bucket};

/// Size up to which a body is small: small bodies are not counted by address while there is room.
const SMALL: u64 = 64 * 1024;

/// Part of the whole that large bodies leave to small ones.
const RESERVE: u64 = 8;

/// Part that one address may take of the room that others leave.
const SHARE: u64 = 2;

/// The largest body that can be held at all, with so much for all bodies.
pub const fn largest(max_held: u64) -> u64 {
    (max_held - max_held / RESERVE) / SHARE
}

/// Memory of all bodies.
#[derive(Debug)]
pub struct MemoryLimit {
    most: AtomicU64,
    now: AtomicU64,
    /// Bytes counted by address: those of large bodies, and of small ones while memory is short.
    counted: Mutex<HashMap<IpAddr, u64>>,
}

/// Memory of one request, until this is dropped.
#[derive(Debug)]
pub(super) struct MemoryPermit {
    held: Option<Arc<MemoryLimit>>,
    address: IpAddr,
    taken: Mutex<Portion>,
}

#[derive(Debug, Default)]
struct Portion {
    bytes: u64,
    /// The part of it that is counted for the address.
    counted: u64,
}

impl MemoryLimit {
    /// A limit of this many bytes.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU64::new(most),
            now: AtomicU64::new(0),
            counted: Mutex::default(),
        })
    }

    /// Another bound, for what is taken from now on.
    pub fn set(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The bytes that are held now.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// For the body of a request from this address.
    pub(super) fn permit(self: &Arc<Self>, address: IpAddr) -> MemoryPermit {
        MemoryPermit {
            held: Some(self.clone()),
            address: bucket(address),
            taken: Mutex::default(),
        }
    }

    /// Takes this many bytes, if there is room. They are counted first and judged then, so that no two take the last of it.
    fn take(&self, bytes: u64) -> bool {
        let before = self.now.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > self.most.load(Ordering::Relaxed) {
            self.now.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// The same for an address, within its share.
    fn take_counted(&self, address: IpAddr, bytes: u64, is_large: bool) -> bool {
        let mut counted = self.counted.lock();
        let mine = counted.get(&address).copied().unwrap_or(0);
        let most = self.most.load(Ordering::Relaxed);
        let open = if is_large {
            most - most / RESERVE
        } else {
            most
        };
        let others = self.now().saturating_sub(mine);
        if mine.saturating_add(bytes) > open.saturating_sub(others) / SHARE || !self.take(bytes) {
            return false;
        }
        counted.insert(address, mine + bytes);
        true
    }

    fn give_back(&self, address: IpAddr, taken: &Portion) {
        if taken.counted > 0 {
            let mut counted = self.counted.lock();
            if let Some(mine) = counted.get_mut(&address) {
                *mine = mine.saturating_sub(taken.counted);
                if *mine == 0 {
                    counted.remove(&address);
                }
            }
            // A crowd that has gone leaves no room behind.
            if counted.capacity() > 4 * (counted.len() + 256) {
                counted.shrink_to_fit();
            }
        }
        self.now.fetch_sub(taken.bytes, Ordering::AcqRel);
    }
}

impl MemoryPermit {
    /// For a body that is counted nowhere.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            held: None,
            address: IpAddr::from([0; 4]),
            taken: Mutex::default(),
        }
    }

    /// Grows the request's memory to this many bytes, if there is room.
    pub(super) fn grow(&self, to: u64) -> Result<(), Refusal> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        let mut taken = self.taken.lock();
        let more = to.saturating_sub(taken.bytes);
        if more == 0 {
            return Ok(());
        }
        let is_large = to > SMALL;
        let is_short = held.now() > held.most.load(Ordering::Relaxed) / 2;
        if !is_large && !is_short {
            return match held.take(more) {
                true => {
                    taken.bytes += more;
                    Ok(())
                }
                false => Err(full()),
            };
        }
        // Bytes that were not counted so far count for the address from here on.
        let uncounted = taken.bytes - taken.counted;
        held.now.fetch_sub(uncounted, Ordering::AcqRel);
        if held.take_counted(self.address, uncounted + more, is_large) {
            taken.bytes += more;
            taken.counted = taken.bytes;
            return Ok(());
        }
        held.now.fetch_add(uncounted, Ordering::AcqRel);
        Err(full())
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        let taken = std::mem::take(self.taken.get_mut());
        if let Some(held) = self.held.take().filter(|_| taken.bytes > 0) {
            held.give_back(self.address, &taken);
        }
    }
}

fn full() -> Refusal {
    Refusal::Overloaded(refuse::retry_soon())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn s11_one_address_leaves_half_and_large_bodies_leave_room_for_small_ones() {
        let held = MemoryLimit::new(64 * MIB);
        let hold = |number: u8, bytes: u64| {
            let hold = held.permit(address(number));
            hold.grow(bytes).map(|()| hold)
        };
        let mut all: Vec<MemoryPermit> = (0..7).map(|_| hold(1, 4 * MIB).unwrap()).collect();
        assert!(hold(1, 4 * MIB).is_err(), "28 MiB are half of 56");
        all.extend((0..3).map(|_| hold(2, 4 * MIB).unwrap()));
        assert!(
            hold(2, 4 * MIB).is_err(),
            "and the next one gets half of the rest"
        );
        assert!(hold(3, 4 * MIB).is_ok());
        // Whoever comes with however many addresses: small ones find room.
        for number in 3..250 {
            while let Ok(more) = hold(number, 256 * 1024) {
                all.push(more);
            }
        }
        assert!(held.now() <= 56 * MIB, "{}", held.now());
        assert!(
            hold(251, 20 * 1024).is_ok() && hold(1, 20 * 1024).is_ok() == (held.now() < 36 * MIB)
        );
        drop(all);
        assert_eq!((held.now(), held.counted.lock().len()), (0, 0));
    }

    #[test]
    fn a_body_that_grows_takes_more_and_gives_all_of_it_back() {
        let held = MemoryLimit::new(MIB);
        let growing = held.permit(address(1));
        for kib in [8, 16, 64, 65, 200, 400] {
            growing.grow(kib * 1024).unwrap();
            assert_eq!(held.now(), kib * 1024);
        }
        assert!(growing.grow(600 * 1024).is_err());
        assert_eq!(held.now(), 400 * 1024, "what was held stays held");
        drop(growing);
        assert_eq!(held.now(), 0);
        assert!(MemoryPermit::none().grow(u64::MAX).is_ok());
        assert_eq!(largest(256 * MIB), 112 * MIB);
    }
}

//! Limit on connections at once: in all, and from one address, so that no caller takes all of them.
//!
//! What is promised: when all places are taken, an idle connection goes before a new one is turned away, unless the
//! newcomer's network has more of them than those of all that are idle. Whoever is in the middle of a request or an
//! answer keeps its place, and so does for a moment whoever has just come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{bucket, network};

/// Connections that were told to go and have not gone yet. Each of them may already have a successor.
const MOST_LEAVING: usize = 32;

/// Time in which a new connection may bring its first request before it counts as idle.
const WELCOME: Duration = Duration::from_secs(2);

/// Connections that are searched for an idle one.
const LOOK_AT: usize = 1024;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    whole: usize,
    each: usize,
    taken: Mutex<OpenConnections>,
    /// Number of ended requests and answers: it orders connections by idle time.
    ends: AtomicU64,
}

#[derive(Debug, Default)]
struct OpenConnections {
    seats: Vec<Arc<ConnectionState>>,
    leaving: usize,
    /// Position at which the next search begins.
    next: usize,
    by_address: HashMap<IpAddr, usize>,
    by_network: HashMap<u128, usize>,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    places: Arc<ConnectionLimit>,
    seat: Arc<ConnectionState>,
    /// Whose share it counts for.
    address: Option<IpAddr>,
}

/// State of a connection, as the listener sees it.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// Position in the list.
    at: AtomicUsize,
    /// The network it counts for; none for a trusted proxy.
    network: Mutex<Option<u128>>,
    /// Time of its arrival.
    since: Instant,
    /// True after its first request.
    has_asked: AtomicBool,
    /// Requests and answers under way.
    busy: AtomicU32,
    /// Count at which the last of them ended.
    last: AtomicU64,
    told_to_leave: AtomicBool,
    leave: Notify,
}

/// Reason why a connection gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// All of them are taken.
    Full,
    /// The address has its share.
    Share,
}

impl ConnectionLimit {
    pub(super) fn new(whole: usize, each: usize) -> Self {
        Self {
            whole,
            each,
            taken: Mutex::default(),
            ends: AtomicU64::new(0),
        }
    }

    /// A place for a connection: counted for an address, or for nobody where the caller is not known yet.
    pub(super) fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<ConnectionSlot, NoSlot> {
        let mut taken = self.held();
        if let Some(address) = address {
            self.has_room(&taken, address)?;
        }
        if taken.seats.len() >= self.whole + taken.leaving {
            let crowd =
                address.and_then(|address| taken.by_network.get(&network(address)).copied());
            taken.make_room(crowd.unwrap_or_default())?;
        }
        let seat = Arc::new(ConnectionState::new(
            taken.seats.len(),
            self.ends.fetch_add(1, Ordering::Relaxed),
        ));
        taken.seats.push(seat.clone());
        let mut place = ConnectionSlot {
            places: self.clone(),
            seat,
            address: None,
        };
        if let Some(address) = address {
            place.count(&mut taken, address);
        }
        drop(taken);
        Ok(place)
    }

    fn has_room(&self, taken: &OpenConnections, address: IpAddr) -> Result<(), NoSlot> {
        let count = taken
            .by_address
            .get(&bucket(address))
            .copied()
            .unwrap_or_default();
        if count >= self.each {
            Err(NoSlot::Share)
        } else {
            Ok(())
        }
    }

    fn held(&self) -> MutexGuard<'_, OpenConnections> {
        self.taken.lock()
    }
}

impl OpenConnections {
    /// Tells an idle connection to go: of the largest network the one that has been idle longest. A newcomer from a
    /// network that is larger than those of all that are idle finds no room.
    fn make_room(&mut self, crowd: usize) -> Result<(), NoSlot> {
        if self.leaving >= MOST_LEAVING {
            return Err(NoSlot::Full);
        }
        let count = self.seats.len();
        let looked_at = (0..count.min(LOOK_AT)).map(|step| (self.next + step) % count);
        let idle = looked_at
            .filter_map(|at| self.seats.get(at))
            .filter(|seat| seat.is_idle());
        let best = idle
            .map(|seat| (self.crowd_of(seat), seat))
            .max_by_key(|(crowd, seat)| {
                let last = seat.last.load(Ordering::Relaxed);
                (*crowd, std::cmp::Reverse(last))
            });
        let leaver = best
            .filter(|(size, _)| *size >= crowd)
            .map(|(_, seat)| seat.clone());
        self.next = (self.next + LOOK_AT) % count.max(1);
        let leaver = leaver.ok_or(NoSlot::Full)?;
        self.leaving += 1;
        leaver.told_to_leave.store(true, Ordering::Relaxed);
        leaver.leave.notify_one();
        Ok(())
    }

    /// Number of connections from the network of this one.
    fn crowd_of(&self, seat: &ConnectionState) -> usize {
        let network = *seat.network.lock();
        network
            .and_then(|network| self.by_network.get(&network).copied())
            .unwrap_or_default()
    }
}

impl ConnectionSlot {
    /// Counts it for an address that a proxy has named.
    pub(super) fn share(&mut self, address: IpAddr) -> Result<(), NoSlot> {
        let places = self.places.clone();
        let mut taken = places.held();
        places.has_room(&taken, address)?;
        self.count(&mut taken, address);
        drop(taken);
        Ok(())
    }

    fn count(&mut self, taken: &mut OpenConnections, address: IpAddr) {
        *taken.by_address.entry(bucket(address)).or_default() += 1;
        *taken.by_network.entry(network(address)).or_default() += 1;
        *self.seat.network.lock() = Some(network(address));
        self.address = Some(address);
    }

    /// Something is under way, until what this gives is dropped.
    pub(super) fn busy(&self) -> BusySlot {
        self.seat.busy.fetch_add(1, Ordering::Relaxed);
        self.seat.has_asked.store(true, Ordering::Relaxed);
        BusySlot {
            places: self.places.clone(),
            seat: self.seat.clone(),
        }
    }

    /// The state that tells when the slot is to be given up.
    pub(super) fn seat(&self) -> Arc<ConnectionState> {
        self.seat.clone()
    }
}

impl ConnectionState {
    fn new(at: usize, last: u64) -> Self {
        Self {
            at: at.into(),
            network: Mutex::default(),
            since: Instant::now(),
            has_asked: false.into(),
            busy: 0.into(),
            last: last.into(),
            told_to_leave: false.into(),
            leave: Notify::new(),
        }
    }

    /// Resolves, once, when the place is to be given up.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// True if no request or answer is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn is_idle(&self) -> bool {
        let is_settled = self.has_asked.load(Ordering::Relaxed) || self.since.elapsed() > WELCOME;
        self.is_quiet() && is_settled && !self.told_to_leave.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let places = self.places.clone();
        let mut taken = places.held();
        let at = self.seat.at.load(Ordering::Relaxed);
        if at < taken.seats.len() {
            taken.seats.swap_remove(at);
        }
        if let Some(moved) = taken.seats.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
        if self.seat.told_to_leave.load(Ordering::Relaxed) {
            taken.leaving -= 1;
        }
        if let Some(address) = self.address {
            one_less(&mut taken.by_address, &bucket(address));
            one_less(&mut taken.by_network, &network(address));
        }
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    let Some(count) = counts.get_mut(of) else {
        return;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(of);
        // A crowd that has gone leaves no room behind.
        if counts.capacity() > 4 * (counts.len() + 256) {
            counts.shrink_to_fit();
        }
    }
}

/// A request or an answer under way on a connection.
#[derive(Debug)]
pub(super) struct BusySlot {
    places: Arc<ConnectionLimit>,
    seat: Arc<ConnectionState>,
}

impl Drop for BusySlot {
    fn drop(&mut self) {
        let end = self.places.ends.fetch_add(1, Ordering::Relaxed);
        self.seat.last.store(end, Ordering::Relaxed);
        self.seat.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, whose connection is busy until it ends.
pub(super) struct BusyBody<B> {
    inner: B,
    _busy: BusySlot,
}

impl<B> BusyBody<B> {
    pub(super) const fn new(inner: B, busy: BusySlot) -> Self {
        Self { inner, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for BusyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<ConnectionLimit>, address: &str) -> Result<ConnectionSlot, NoSlot> {
        places.take(Some(address.parse().unwrap()))
    }

    #[test]
    fn t35_an_address_gets_its_share_and_not_all() {
        let places = Arc::new(ConnectionLimit::new(4, 2));
        let one = take(&places, "192.0.2.1").unwrap();
        let two = take(&places, "192.0.2.1").unwrap();
        assert_eq!(
            take(&places, "::ffff:192.0.2.1").unwrap_err(),
            NoSlot::Share
        );
        let v6 = take(&places, "2001:db8::1").unwrap();
        let same_64 = take(&places, "2001:db8::2").unwrap();
        let _busy = [&one, &two, &v6, &same_64].map(ConnectionSlot::busy);
        assert_eq!(
            take(&places, "192.0.2.9").unwrap_err(),
            NoSlot::Full,
            "all are taken"
        );
        drop(two);
        assert_eq!(take(&places, "2001:db8::3").unwrap_err(), NoSlot::Share);
        let mut unknown = places.take(None).unwrap();
        assert_eq!(
            unknown.share("2001:db8::3".parse().unwrap()),
            Err(NoSlot::Share)
        );
        unknown.share("192.0.2.1".parse().unwrap()).unwrap();
    }

    #[test]
    fn s35_when_all_places_are_taken_an_idle_one_of_the_largest_network_goes() {
        let places = Arc::new(ConnectionLimit::new(6, 2));
        // Three /64s of one /48, and two callers from elsewhere.
        let crowd: Vec<ConnectionSlot> = [
            "2001:db8:0:1::1",
            "2001:db8:0:2::1",
            "2001:db8:0:3::1",
            "2001:db8:0:1::2",
        ]
        .map(|address| take(&places, address).unwrap())
        .into();
        let other = take(&places, "192.0.2.1").unwrap();
        let proxy = places.take(None).unwrap();
        assert_eq!(
            take(&places, "198.51.100.1").unwrap_err(),
            NoSlot::Full,
            "all of them have just come"
        );
        for place in crowd.iter().chain([&other, &proxy]) {
            drop(place.busy());
        }
        let told = |place: &ConnectionSlot| place.seat.told_to_leave.load(Ordering::Relaxed);
        let busy = crowd[0].busy();
        let newcomer = take(&places, "198.51.100.1").unwrap();
        assert!(told(&crowd[1]), "the one that has been idle longest");
        assert_eq!(
            [&crowd[0], &crowd[2], &crowd[3], &other, &proxy].map(told),
            [false; 5]
        );
        // The network itself may come back in place of its own only.
        drop(newcomer.busy());
        let again = take(&places, "2001:db8:0:4::1").unwrap();
        assert!(told(&crowd[2]) && !told(&other));
        drop(busy);
        let busy = [&crowd[0], &crowd[3], &again].map(ConnectionSlot::busy);
        assert_eq!(take(&places, "2001:db8:0:5::1").unwrap_err(), NoSlot::Full);
        assert!(!told(&other) && !told(&newcomer) && !told(&proxy));
        // Those who were told go, and the count is what it was.
        drop((crowd, busy, again));
        let taken = places.held();
        assert_eq!((taken.seats.len(), taken.leaving), (3, 0));
        assert_eq!(taken.by_network.len(), 2);
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let places = Arc::new(ConnectionLimit::new(10, 1));
        for number in 0..100_u32 {
            places
                .take(Some(std::net::Ipv4Addr::from_bits(number).into()))
                .unwrap();
        }
        let taken = places.held();
        assert_eq!(
            (
                taken.seats.len(),
                taken.by_address.len(),
                taken.by_network.len()
            ),
            (0, 0, 0)
        );
    }
}

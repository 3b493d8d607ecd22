//! Limit of wrong tokens for each address.
//!
//! Promises: an address that has sent too many wrong tokens waits before each further token is compared, and only a
//! few of its tokens wait at the same time, so guessing is slow. No other address waits for it. The operator at the
//! same address has the right token accepted after that wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::auth::SlidingWindow;
use crate::model::{Timestamp, bucket};

/// Wait before a token of such an address is compared.
const WAIT: Duration = Duration::from_millis(500);

/// Tokens of one address that wait at the same time.
const WAITING: usize = 4;

/// Largest number of addresses with a count of their own.
const MAX_ADDRESSES: usize = 1024;

/// Wrong tokens of all addresses.
#[derive(Debug)]
pub(super) struct Guesses {
    most: usize,
    span: Duration,
    addresses: Mutex<HashMap<IpAddr, Arc<Guesser>>>,
    /// Shared count of the addresses beyond that number.
    others: Arc<Guesser>,
}

/// Wrong tokens of one address.
#[derive(Debug)]
pub(super) struct Guesser {
    window: SlidingWindow,
    waiting: tokio::sync::Semaphore,
}

impl Guesses {
    /// Permits `most` wrong tokens in `span` before an address has to wait.
    pub(super) fn new(most: usize, span: Duration) -> Self {
        Self {
            most,
            span,
            addresses: Mutex::default(),
            others: Arc::new(Guesser::new(most, span)),
        }
    }

    /// Waits before a token of this address is compared. The error has the time until the next attempt; its token was
    /// not compared.
    pub(super) async fn wait(&self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let found = self.held().get(&bucket(address)).cloned();
        let Some(wait) = found.as_ref().and_then(|guesser| guesser.window.full(now)) else {
            return Ok(());
        };
        let Some(Ok(_turn)) = found.as_ref().map(|guesser| guesser.waiting.try_acquire()) else {
            return Err(wait);
        };
        tokio::time::sleep(WAIT).await;
        Ok(())
    }

    /// Counts a wrong token. Over the limit, the error has the time until the next attempt.
    pub(super) fn count(&self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let mut addresses = self.held();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&bucket(address)) {
            // An address that has to wait keeps its count; only others make room for a new one.
            addresses.retain(|_, guesser| guesser.window.full(now).is_some());
        }
        let guesser = if addresses.len() < MAX_ADDRESSES || addresses.contains_key(&bucket(address))
        {
            addresses
                .entry(bucket(address))
                .or_insert_with(|| Arc::new(Guesser::new(self.most, self.span)))
                .clone()
        } else {
            self.others.clone()
        };
        drop(addresses);
        guesser.window.take(now)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Guesser>>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guesser {
    fn new(most: usize, span: Duration) -> Self {
        Self {
            window: SlidingWindow::new(most, span),
            waiting: tokio::sync::Semaphore::new(WAITING),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn s28_guesses_are_slow_for_the_address_that_makes_them_and_for_nobody_else() {
        let guesses = Guesses::new(2, Duration::from_secs(60));
        let (theirs, ours) = (
            "192.0.2.1".parse().unwrap(),
            "198.51.100.1".parse().unwrap(),
        );
        let now = Timestamp::from_seconds(100);
        let begun = tokio::time::Instant::now();
        assert_eq!(
            (guesses.count(theirs, now), guesses.count(theirs, now)),
            (Ok(()), Ok(()))
        );
        assert_eq!(guesses.count(theirs, now), Err(Duration::from_secs(60)));
        assert_eq!(
            guesses.wait(ours, now).now_or_never(),
            Some(Ok(())),
            "nobody else waits"
        );
        let waits =
            futures_util::future::join_all((0..WAITING + 3).map(|_| guesses.wait(theirs, now)))
                .await;
        assert_eq!(waits.iter().filter(|wait| wait.is_ok()).count(), WAITING);
        assert!(begun.elapsed() >= WAIT);
        let later = Timestamp::from_seconds(161);
        assert_eq!(
            guesses.wait(theirs, later).now_or_never(),
            Some(Ok(())),
            "its time is over"
        );
    }

    #[tokio::test]
    async fn s28_a_crowd_of_addresses_frees_nobody() {
        let guesses = Guesses::new(1, Duration::from_secs(60));
        let now = Timestamp::from_seconds(100);
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        for n in 0..3 * u32::try_from(MAX_ADDRESSES).unwrap() {
            let _ = guesses.count(address(n), now);
        }
        assert_eq!(guesses.held().len(), MAX_ADDRESSES);
        assert!(guesses.count(address(0), now).is_err());
        assert!(
            guesses.count(address(u32::MAX), now).is_err(),
            "who finds no room is counted with the others"
        );
    }
}

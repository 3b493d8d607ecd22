//! A service that can be exchanged while it serves: a request begun before goes on with the one it met.

use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tower::Service;

/// The service of the moment. Clones share it.
#[derive(Debug)]
pub struct Reloadable<S>(Arc<ArcSwap<S>>);

impl<S> Reloadable<S> {
    /// Begins with one.
    pub fn new(first: S) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// Takes another for every request to come.
    pub fn exchange(&self, next: S) {
        self.0.store(Arc::new(next));
    }
}

impl<S> Clone for Reloadable<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R, S: Service<R> + Clone> Service<R> for Reloadable<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Both services that are served this way are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        let mut service = S::clone(&self.0.load());
        service.call(request)
    }
}

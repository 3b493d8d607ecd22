//! Targets: the services that deliveries go to, one for each kind of destination.
//!
//! A target makes a delivery ready, sends it, and says what became of one that may have been sent before. Everything else
//! is the dispatcher's and the same for every target: lanes, caps, rates, breakers, pauses, retries, dead letters and
//! what an operator sees of them.

mod channel;
mod file;
mod upstream;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::inbox::{Claimed, Next, OwedDelivery, Turn};
use crate::model::{AttemptResult, Lookup};

pub(super) use channel::ChannelTarget;
pub(super) use file::FileDelivery;
pub(super) use upstream::UpstreamTarget;

/// A service that deliveries of one kind go to.
#[async_trait]
pub trait Target: fmt::Debug + Send + Sync {
    /// Makes a delivery ready to be sent. Nothing is sent yet, and a later attempt may do the same again.
    async fn prepare<'a>(
        &'a self,
        claimed: &'a Claimed,
    ) -> Result<Box<dyn Shipment + 'a>, PrepareError>;

    /// True if a delivery takes several sends: then each attempt is one `advance`. Otherwise one send is all of it, which
    /// is prepared, sent and followed by the dispatcher.
    fn is_stepwise(&self) -> bool {
        false
    }

    /// Brings a delivery that takes several sends one step further, by at most one call.
    async fn advance(&self, claimed: &Claimed) -> Advance {
        let _ = claimed;
        Advance::dead("one_send", "the delivery takes one send".to_owned())
    }

    /// True if the service has one record for a whole conversation, so that a record under the delivery's id may show
    /// an earlier message. Otherwise a record always is the delivery's own.
    fn has_record_per_conversation(&self) -> bool {
        false
    }

    /// The message that an earlier delivery of this delivery's conversation sent, for comparing it with a record.
    fn text_of(&self, claimed: &Claimed, earlier: &Turn) -> String {
        let _ = (claimed, earlier);
        String::new()
    }

    /// The deliveries that a delivery owes when it ends like this. They are written in the transaction that ends it, so
    /// that no crash comes between; each is of the same event and is sent like any other.
    fn owes(&self, claimed: &Claimed, next: &Next) -> Vec<OwedDelivery> {
        let _ = (claimed, next);
        Vec::new()
    }
}

/// One step of a delivery that takes several sends.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The fate of the delivery.
    pub next: Next,
    /// A stable word for the attempt.
    pub result: &'static str,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// A sentence for the operator.
    pub detail: String,
    /// The payload of the delivery from now on.
    pub progress: Option<Bytes>,
    /// Time for which the whole destination is left alone.
    pub rest: Option<Duration>,
}

impl Advance {
    /// A delivery that cannot be sent as it is.
    pub fn dead(result: &'static str, detail: String) -> Self {
        Self {
            next: Next::Dead(None),
            result,
            status: None,
            detail,
            progress: None,
            rest: None,
        }
    }
}

/// A delivery that is ready to be sent.
#[async_trait]
pub trait Shipment: Send + Sync {
    /// The message, for comparing it with a record of the service.
    fn text(&self) -> &str;

    /// Adds what is good only from now on, such as links to files. Called once, just before it is sent. An error is a
    /// sentence; the delivery is tried again.
    async fn complete(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Sends it once.
    async fn send(&self) -> AttemptResult;

    /// Asks the service what became of it.
    async fn look_up(&self) -> Lookup;

    /// The time after which a send that has not ended says nothing about the service: it may work for long.
    fn longest_send(&self) -> Option<Duration> {
        None
    }

    /// True if a send only starts something whose end is to be asked for.
    fn is_started_only(&self) -> bool {
        false
    }

    /// True if it is sent with a key of its caller's, and not with one of the gateway's.
    fn has_own_key(&self) -> bool {
        false
    }
}

/// The reason why a delivery cannot be made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// Something is missing that may be there at another time; a sentence. The delivery is tried again.
    NotNow(String),
    /// It can never be sent as it is. The delivery is dead.
    Dead {
        /// A stable word for the attempt.
        result: &'static str,
        /// A sentence for the operator.
        detail: String,
    },
}

//! Claims: the terms they are made on, and the deliveries they bring.

use bytes::Bytes;
use uuid::Uuid;

use super::Answer;
use crate::model::{
    Account, Attachment, Class, DeliveryId, Destination, Overlap, Params, Route, Timestamp,
};

/// On what terms deliveries may be claimed. The engine asks within a claim, so answers are quick and wait for nothing.
pub trait Terms: Send {
    /// A claim begins, maybe not for the first time: what was taken before is forgotten.
    fn begin(&mut self);

    /// More deliveries that may be leased in all.
    fn room(&self) -> usize;

    /// More of a route that may be leased. 0: it is held, at its cap or resting, and its lanes stay as they are.
    fn open(&mut self, route: &Route) -> usize;

    /// So many of a route are leased.
    fn took(&mut self, route: &Route, count: usize);

    /// The overlap policy of a source.
    fn overlap(&self, source: &str) -> Overlap;

    /// The weight of a source against the other sources of its account.
    fn weight(&self, _source: &str) -> u32 {
        1
    }

    /// Of a hundred places, how many callers with foreign keys have while others wait as well.
    fn foreign_share(&self) -> u32 {
        25
    }
}

/// The result of a claim.
#[derive(Clone, Debug, Default)]
pub struct ClaimBatch {
    /// The leases.
    pub claimed: Vec<Claimed>,
    /// The time when, in a route that was open, the next lane that is not leased is due. Only said when nothing was
    /// claimed.
    pub next_due: Option<Timestamp>,
    /// Deliveries that were dropped on the way, by source.
    pub dropped: Vec<(String, u64)>,
}

/// A delivery under lease.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its name.
    pub id: DeliveryId,
    /// The engine's own number for it.
    pub key: i64,
    /// Its lane.
    pub lane: Uuid,
    /// The lease: a settlement that carries another number changes nothing.
    pub fence: i64,
    /// To whom.
    pub destination: Destination,
    /// On whose behalf.
    pub account: Account,
    /// Its class: how urgent it is.
    pub class: Class,
    /// The upstream `id` that was chosen for it.
    pub upstream_id: String,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// The tries that count against it, this one among them: those that reached the upstream or ended the process.
    pub strikes: u32,
    /// Since when it may have been sent without anybody knowing the end. None: it surely has not run.
    pub doubt: Option<Timestamp>,
    /// The source it came by.
    pub source: String,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// The time when its request came.
    pub received_at: Timestamp,
    /// The values that the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The files that came along, in their order.
    pub attachments: Vec<Attachment>,
    /// [`crate::model::NewDelivery::sealed`]
    pub sealed: Option<Bytes>,
    /// The delivery that it answers, with the answer; `None`: it is owed by its event.
    pub answers: Option<AnsweredDelivery>,
    /// The events that go with it as one turn, in order of arrival.
    pub merged: Vec<Merged>,
    /// Turns of the conversation that were dropped in its favour.
    pub dropped: u32,
}

impl Claimed {
    /// The route it goes by.
    pub fn route(&self) -> Route {
        Route {
            source: self.source.clone(),
            destination: self.destination.clone(),
            account: self.account.clone(),
            class: self.class,
        }
    }
}

/// The delivery that another one answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredDelivery {
    /// Its name.
    pub id: DeliveryId,
    /// The payload of the owed delivery.
    pub payload: Bytes,
}

/// An event that goes out within the turn of another.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Its delivery's name.
    pub id: DeliveryId,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The time when its request came.
    pub received_at: Timestamp,
    /// The values that the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The files that came along, in their order.
    pub attachments: Vec<Attachment>,
}

/// A turn of a conversation that went before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its delivery.
    pub id: DeliveryId,
    /// The upstream's last word on its run.
    pub answer: Option<Answer>,
    /// The values that the mapping took from its event.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

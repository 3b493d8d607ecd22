//! The next step of a reply: a decision by its state, the channel's description, the source's rules and the time.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{ChannelReply, Flight, FlightAction, PartState, ReplyPolicy};
use crate::channel::spec::{ChannelSpec, SendWay};
use crate::model::Timestamp;

/// Most questions about one send.
const CHECKS: u32 = 5;

/// Most by which the clock of a channel differs from ours.
const CLOCKS: Duration = Duration::from_secs(120);

/// The least length to which a part is cut.
const SMALLEST: usize = 40;

/// The next thing to do for a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Send these parts by this way with this key.
    Send {
        /// Number of the way.
        way: usize,
        /// Numbers of the parts.
        parts: Range<usize>,
        /// The key of the call.
        key: Uuid,
    },
    /// Change a message of ours into this part.
    Edit {
        /// Number of the part.
        part: usize,
        /// Id of the message.
        sent: Value,
        /// The key of the call.
        key: Uuid,
    },
    /// Ask the channel if it has the message with this key.
    Check {
        /// The key of the message.
        key: Uuid,
        /// Time before which the message was surely not there.
        since: Timestamp,
    },
    /// Wait for a later event that proves the message, until this time.
    AwaitProof {
        /// End of the wait.
        until: Timestamp,
    },
    /// Cut a part smaller and give the pieces to [`ChannelReply::replace`].
    Smaller {
        /// Number of the part.
        part: usize,
        /// The length that its pieces may have, in the channel's unit.
        length: usize,
    },
    /// Nothing to do before this time.
    WaitUntil(Timestamp),
    /// Every part is sent.
    Done,
    /// Nobody can tell if a part was sent. An operator decides.
    Unknown,
    /// A part will not be sent; the code says why.
    Dead(String),
}

impl ChannelReply {
    /// The next step. An end that is found here, such as a closed window, is recorded in the reply.
    ///
    /// Not to be called between [`Self::begin`] and [`Self::end`] of the same process: a flight without an end is taken for
    /// one that a crash has left.
    pub fn next(&mut self, spec: &ChannelSpec, policy: ReplyPolicy, now: Timestamp) -> NextStep {
        if let Some(flight) = &mut self.flight {
            flight.in_doubt = true;
            let flight = flight.clone();
            match self.resolve(&flight, spec, policy, now) {
                Some(step) => return step,
                None => self.give_up(&flight, policy),
            }
        }
        let pending = |part: &super::TrackedPart| part.state == PartState::Pending;
        let Some(first) = self.parts.iter().position(pending) else {
            return self.ended();
        };
        if let Some(code) = self.too_late(spec, policy, now) {
            return self.fail(first, code);
        }
        if let Some(at) = self.resume_at.filter(|at| *at > now) {
            return NextStep::WaitUntil(at);
        }
        if self.parts[first].is_too_long {
            let length = spec.limits.length >> self.parts[first].cuts.min(8);
            return NextStep::Smaller {
                part: first,
                length: length.max(SMALLEST),
            };
        }
        let key = self.key(first);
        if let (0, Some(sent), Some(_)) = (first, &self.placeholder, &spec.edit) {
            return NextStep::Edit {
                part: first,
                sent: sent.clone(),
                key,
            };
        }
        let mut ways = (0..spec.ways.len()).filter(|way| self.applies(*way, first, spec));
        let has_secret = |way: &usize| policy.has_secret || !spec.ways[*way].needs_secret;
        let mut open = ways.clone().filter(has_secret);
        match open.find(|way| self.is_open(*way, spec, now)) {
            Some(way) => NextStep::Send {
                way,
                parts: first..first + self.carried(first, &spec.ways[way]),
                key,
            },
            // A way that is closed by time or number was open once; without any the file has none for such a chat.
            None if ways.next().is_some() => self.fail(first, "window"),
            None => self.fail(first, "no_way"),
        }
    }

    /// Records that a send or an edit begins. The reply has to be kept before the call is made.
    pub fn begin(&mut self, step: &NextStep, spec: &ChannelSpec, now: Timestamp) {
        let (action, parts) = match step {
            NextStep::Send { way, parts, .. } => {
                let label = spec.ways.get(*way).map(|way| way.label.clone());
                let action = FlightAction::Send {
                    way: *way,
                    label: label.unwrap_or_default(),
                };
                *self.uses.entry(*way).or_default() += 1;
                (action, parts.clone())
            }
            NextStep::Edit { part, sent, .. } => {
                let sent = sent.clone();
                (FlightAction::Edit { sent }, *part..part + 1)
            }
            _ => return,
        };
        self.resume_at = None;
        match &mut self.flight {
            Some(flight) => {
                flight.begun = now;
                flight.in_doubt = true;
            }
            None => {
                self.flight = Some(Flight {
                    action,
                    first: parts.start,
                    count: parts.len(),
                    since: now,
                    begun: now,
                    in_doubt: false,
                    is_refused: false,
                    checks: 0,
                });
            }
        }
    }

    /// The step that finds out what became of a send without a known end; nothing once all have been taken.
    fn resolve(
        &self,
        flight: &Flight,
        spec: &ChannelSpec,
        policy: ReplyPolicy,
        now: Timestamp,
    ) -> Option<NextStep> {
        let key = self.key(flight.first);
        let waits = self.resume_at.filter(|at| *at > now);
        let is_late = self.too_late(spec, policy, now).is_some();
        if !is_late && !flight.is_refused && self.may_repeat(flight, spec, waits.unwrap_or(now)) {
            let again = match &flight.action {
                FlightAction::Send { way, .. } => NextStep::Send {
                    way: *way,
                    parts: flight.first..flight.first + flight.count,
                    key,
                },
                FlightAction::Edit { sent } => NextStep::Edit {
                    part: flight.first,
                    sent: sent.clone(),
                    key,
                },
            };
            return Some(waits.map_or(again, NextStep::WaitUntil));
        }
        // A message without its key would never be found, and would be taken for one that is not there.
        sent_by(flight, spec).filter(|way| way.carries_key)?;
        if let Some(check) = spec.check.as_ref().filter(|_| flight.checks < CHECKS) {
            let due = flight.begun + check.after;
            let due = waits.map_or(due, |at| at.max(due));
            return Some(match due > now {
                true => NextStep::WaitUntil(due),
                false => NextStep::Check {
                    key,
                    since: flight.since - CLOCKS,
                },
            });
        }
        let until = flight.begun + spec.proof.as_ref()?.within;
        (until > now).then_some(NextStep::AwaitProof { until })
    }

    /// True if the same call at this time cannot make a second message.
    fn may_repeat(&self, flight: &Flight, spec: &ChannelSpec, at: Timestamp) -> bool {
        match &flight.action {
            FlightAction::Edit { .. } => spec.edit.is_some(),
            FlightAction::Send { way, .. } => sent_by(flight, spec).is_some_and(|known| {
                // A clock that was put back says nothing of the age of a key.
                let remembers = known
                    .key
                    .is_some_and(|key| at >= flight.since && key.holds(at.since(flight.since)));
                (known.is_idempotent || remembers) && self.is_open(*way, spec, at)
            }),
        }
    }

    /// Ends the doubt by the rule of the source: once more with a mark, or unknown.
    fn give_up(&mut self, flight: &Flight, policy: ReplyPolicy) {
        self.flight = None;
        let range = flight.first..flight.first + flight.count;
        let parts = self.parts.get_mut(range).unwrap_or_default();
        let repeats = policy.repeats_unknown
            && matches!(flight.action, FlightAction::Send { .. })
            && !parts.iter().any(|part| part.is_repeat);
        for part in parts {
            match repeats {
                true => part.is_repeat = true,
                false => part.state = PartState::Unknown,
            }
        }
        if !repeats {
            self.skip_rest();
        }
    }

    /// The reason why nothing is sent any more, if there is one.
    fn too_late(
        &self,
        spec: &ChannelSpec,
        policy: ReplyPolicy,
        now: Timestamp,
    ) -> Option<&'static str> {
        let age = now.since(self.received_at);
        let is_over = |most: Option<Duration>| most.is_some_and(|most| age >= most);
        match () {
            () if is_over(spec.window) => Some("window"),
            () if is_over(Some(policy.max_age)) => Some("max_age"),
            () => None,
        }
    }

    /// True if a way is made for such a part and such an address.
    fn applies(&self, way: usize, part: usize, spec: &ChannelSpec) -> bool {
        let way = &spec.ways[way];
        way.is_for(part) && way.fits(&self.address, &self.without)
    }

    /// True if a way takes a call at this time.
    fn is_open(&self, way: usize, spec: &ChannelSpec, at: Timestamp) -> bool {
        let age = at.since(self.received_at);
        let used = self.uses.get(&way).copied().unwrap_or_default();
        spec.ways.get(way).is_some_and(|known| {
            !self.closed.contains(&way)
                && known.until.is_none_or(|until| age < until)
                && known.uses.is_none_or(|most| used < most)
        })
    }

    /// Number of parts that one call carries, from a part on.
    fn carried(&self, first: usize, way: &SendWay) -> usize {
        let parts = self.parts.iter().enumerate().skip(first).take(way.batch);
        let fits = |(number, part): &(usize, &super::TrackedPart)| {
            part.state == PartState::Pending && !part.is_too_long && way.is_for(*number)
        };
        parts.take_while(fits).count().max(1)
    }

    /// The end of a reply without pending parts.
    fn ended(&self) -> NextStep {
        let mut states = self.states();
        let is_bad =
            |state: &&PartState| matches!(state, PartState::Unknown | PartState::Dead { .. });
        match states.find(is_bad) {
            Some(PartState::Dead { code }) => NextStep::Dead(code.clone()),
            Some(_) => NextStep::Unknown,
            None => NextStep::Done,
        }
    }

    /// Ends a part, and with it the reply.
    pub(super) fn fail(&mut self, part: usize, code: &str) -> NextStep {
        if let Some(part) = self.parts.get_mut(part) {
            part.state = PartState::Dead {
                code: code.to_owned(),
            };
        }
        self.skip_rest();
        self.ended()
    }

    pub(super) fn skip_rest(&mut self) {
        let pending = |part: &&mut super::TrackedPart| part.state == PartState::Pending;
        self.parts
            .iter_mut()
            .filter(pending)
            .for_each(|part| part.state = PartState::Skipped);
    }
}

/// The way of a flight, if the file still describes it as it did.
fn sent_by<'s>(flight: &Flight, spec: &'s ChannelSpec) -> Option<&'s SendWay> {
    match &flight.action {
        FlightAction::Send { way, label } => spec.ways.get(*way).filter(|way| way.label == *label),
        FlightAction::Edit { .. } => None,
    }
}

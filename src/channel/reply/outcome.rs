//! The end of a call, a question or a wait, recorded in a reply.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{ChannelReply, Flight, FlightAction, PartState, ReplyPart};
use crate::channel::spec::ProofEnd;
use crate::channel::verdict::{ChannelVerdict, Judgement, WaitScope};
use crate::model::Timestamp;

/// Most times that a part is cut smaller.
const CUTS: u32 = 4;

/// Most moves of a chat that one reply follows.
const MOVES: u32 = 2;

/// The longest pause between tries that send nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The channel has answered.
    Answered(Judgement),
    /// It broke off before anything was written; surely not sent.
    NotSent,
    /// It broke off or timed out later, by whatever cause.
    Broken,
    /// The call, or a question that was the next step, cannot be made; a code.
    Impossible(String),
}

/// The end of a question for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckEnd {
    /// The channel has it, with this id.
    Found(Option<Value>),
    /// The channel does not have it.
    Absent,
    /// The question had no answer that can be read.
    Unreadable,
}

/// A decision of an operator about a reply with an unknown part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyResolution {
    /// The channel has the part; the rest is sent.
    WasSent,
    /// The channel does not have the part; it is sent again, and the rest.
    SendAgain,
}

/// Effects of a call beyond its reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideEffects {
    /// Calls that rest, and the end of the rest.
    pub rest: Option<(WaitScope, Timestamp)>,
    /// Code with which the channel refused the token. The source stops until an operator looks at it.
    pub alarm: Option<String>,
    /// True if the chat is gone until somebody writes in it again.
    pub is_gone: bool,
    /// Values of the address that later events of the chat have too.
    pub moved: Vec<(String, Value)>,
}

impl ChannelReply {
    /// Records the end of the call that [`Self::begin`] began.
    pub fn end(&mut self, end: CallEnd, now: Timestamp) -> SideEffects {
        let mut effects = SideEffects::default();
        let Some(flight) = self.flight.clone() else {
            return effects;
        };
        match end {
            CallEnd::Broken => self.keep_doubt(&flight, now),
            CallEnd::NotSent => {
                // A call that did not reach the channel has used nothing up.
                if let FlightAction::Send { way, .. } = &flight.action
                    && let Some(used) = self.uses.get_mut(way)
                {
                    *used = used.saturating_sub(1);
                }
                self.not_sent(&flight, None, now);
            }
            CallEnd::Impossible(code) => self.refused(&flight, &code),
            CallEnd::Answered(judgement) => self.judged(&flight, judgement, now, &mut effects),
        }
        effects
    }

    fn judged(
        &mut self,
        flight: &Flight,
        judgement: Judgement,
        now: Timestamp,
        effects: &mut SideEffects,
    ) {
        let code = judgement.code;
        let is_edit = matches!(flight.action, FlightAction::Edit { .. });
        let verdict = judgement.verdict;
        match verdict {
            ChannelVerdict::Sent { id } => {
                self.sent(flight, id);
                self.resume_at = judgement.rest.map(|rest| now + rest);
                effects.rest = self.resume_at.map(|until| (WaitScope::Chat, until));
            }
            ChannelVerdict::Doubt => self.keep_doubt(flight, now),
            ChannelVerdict::Retry => self.not_sent(flight, None, now),
            ChannelVerdict::Wait { pause, scope } => {
                self.not_sent(flight, pause, now);
                effects.rest = self.resume_at.map(|until| (scope, until));
            }
            ChannelVerdict::Alarm => {
                self.not_sent(flight, Some(LONGEST_PAUSE), now);
                effects.alarm = Some(code);
            }
            ChannelVerdict::Gone => {
                effects.is_gone = true;
                self.refused(flight, &code);
            }
            // An earlier try may have been sent: what the channel says of the later one does not change that.
            _ if flight.in_doubt && !(is_edit && verdict == ChannelVerdict::Plain) => {
                self.refused(flight, &code);
            }
            ChannelVerdict::Dead => self.refused(flight, &code),
            verdict => self.changed(flight, verdict, &code, effects),
        }
    }

    /// Changes what is sent, as the channel wants it. Each change happens once, or the part is dead.
    fn changed(
        &mut self,
        flight: &Flight,
        verdict: ChannelVerdict,
        code: &str,
        effects: &mut SideEffects,
    ) {
        let range = flight.first..flight.first + flight.count;
        let parts = self.parts.get_mut(range).unwrap_or_default();
        let has_changed = match verdict {
            ChannelVerdict::Plain => {
                let marked = parts.iter().any(|part| !part.is_plain);
                parts.iter_mut().for_each(|part| part.is_plain = true);
                marked
            }
            ChannelVerdict::Smaller => {
                for part in &mut *parts {
                    part.cuts += 1;
                    part.is_too_long = true;
                }
                parts.iter().all(|part| part.cuts <= CUTS)
            }
            ChannelVerdict::Without(name) => self.without.insert(name),
            ChannelVerdict::With(values) => {
                self.moves += 1;
                let mut is_known = self.moves <= MOVES;
                for (name, value) in &values {
                    is_known &= self.address.replace(name, value.clone());
                }
                effects.moved = values;
                is_known
            }
            ChannelVerdict::Next => match &flight.action {
                FlightAction::Send { way, .. } => self.closed.insert(*way),
                // A change that is refused is not sent as a new message beside the old one.
                FlightAction::Edit { .. } => false,
            },
            _ => false,
        };
        match has_changed {
            true => self.flight = None,
            false => self.refused(flight, code),
        }
    }

    fn sent(&mut self, flight: &Flight, id: Option<Value>) {
        self.flight = None;
        self.tries = 0;
        self.resume_at = None;
        let mut id = id.or_else(|| match &flight.action {
            FlightAction::Edit { sent } => Some(sent.clone()),
            FlightAction::Send { .. } => None,
        });
        let range = flight.first..flight.first + flight.count;
        for part in self.parts.get_mut(range).unwrap_or_default() {
            part.state = PartState::Sent { id: id.take() };
        }
    }

    /// Surely not sent by this try: the same again after a pause. An earlier try that may have been sent stays in doubt.
    fn not_sent(&mut self, flight: &Flight, pause: Option<Duration>, now: Timestamp) {
        let pause = pause.unwrap_or_else(|| self.pause());
        self.tries = self.tries.saturating_add(1);
        self.resume_at = Some(now + pause.max(Duration::from_secs(1)));
        if !flight.in_doubt {
            self.flight = None;
        }
    }

    /// Nobody can tell if it was sent. The flight stays, and the next step finds out.
    fn keep_doubt(&mut self, flight: &Flight, now: Timestamp) {
        let pause = self.pause();
        self.tries = self.tries.saturating_add(1);
        self.resume_at = Some(now + pause);
        self.flight = Some(Flight {
            in_doubt: true,
            ..flight.clone()
        });
    }

    /// Refused for good: dead, unless an earlier try may have been sent.
    fn refused(&mut self, flight: &Flight, code: &str) {
        if flight.in_doubt {
            self.flight = Some(Flight {
                is_refused: true,
                ..flight.clone()
            });
            return;
        }
        self.flight = None;
        let range = flight.first..flight.first + flight.count;
        for part in self.parts.get_mut(range).unwrap_or_default() {
            part.state = PartState::Dead {
                code: code.to_owned(),
            };
        }
        self.skip_rest();
    }

    /// Pause before the next try: a second, doubled with each try.
    fn pause(&self) -> Duration {
        Duration::from_secs(1 << self.tries.min(8)).min(LONGEST_PAUSE)
    }

    /// Records the end of a question.
    pub fn checked(&mut self, end: CheckEnd, now: Timestamp) {
        let Some(flight) = self.flight.clone() else {
            return;
        };
        match end {
            CheckEnd::Found(id) => self.sent(&flight, id),
            CheckEnd::Absent => {
                // The channel has answered: no try was taken, so nothing is in doubt any more.
                let pause = self.pause();
                self.tries = self.tries.saturating_add(1);
                self.resume_at = Some(now + pause);
                self.flight = None;
            }
            CheckEnd::Unreadable => {
                let pause = self.pause();
                self.tries = self.tries.saturating_add(1);
                self.resume_at = Some(now + pause);
                let checks = flight.checks + 1;
                self.flight = Some(Flight { checks, ..flight });
            }
        }
    }

    /// Records a proof that came with a later event. True if it is about a part of this reply and changes its state.
    pub fn prove(&mut self, key: Uuid, end: &ProofEnd) -> bool {
        let Some(number) = (0..self.parts.len()).find(|part| self.key(*part) == key) else {
            return false;
        };
        if let Some(flight) = self.flight.clone().filter(|flight| flight.first == number) {
            match end {
                ProofEnd::Sent(id) => self.sent(&flight, id.clone()),
                ProofEnd::Failed(code) => {
                    let ended = Flight {
                        in_doubt: false,
                        ..flight
                    };
                    self.refused(&ended, code);
                }
            }
            return true;
        }
        let state = &mut self.parts[number].state;
        let proved = match (end, &*state) {
            (ProofEnd::Failed(code), PartState::Sent { .. } | PartState::Unknown) => {
                PartState::Dead { code: code.clone() }
            }
            (ProofEnd::Sent(id), PartState::Unknown) => PartState::Sent { id: id.clone() },
            _ => return false,
        };
        *state = proved;
        true
    }

    /// Puts smaller pieces in the place of a part that was too long. Without pieces the part is dead.
    pub fn replace(&mut self, part: usize, pieces: Vec<ReplyPart>) {
        let Some(old) = self.parts.get(part).cloned() else {
            return;
        };
        if pieces.is_empty() {
            self.fail(part, "too_long");
            return;
        }
        let new: Vec<_> = pieces
            .into_iter()
            .map(|piece| {
                let mut piece = self.track(piece, old.cuts);
                (piece.is_plain, piece.is_repeat) = (old.is_plain, old.is_repeat);
                piece
            })
            .collect();
        self.parts.splice(part..=part, new);
    }

    /// Records the decision of an operator about a part with an unknown end. True if there is such a part.
    pub fn settle(&mut self, resolution: ReplyResolution) -> bool {
        let unknown = |part: &super::TrackedPart| part.state == PartState::Unknown;
        if !self.parts.iter().any(unknown) {
            return false;
        }
        for part in &mut self.parts {
            match (&part.state, resolution) {
                (PartState::Unknown, ReplyResolution::WasSent) => {
                    part.state = PartState::Sent { id: None };
                }
                (PartState::Unknown, ReplyResolution::SendAgain) | (PartState::Skipped, _) => {
                    part.state = PartState::Pending;
                }
                _ => {}
            }
        }
        self.resume_at = None;
        self.tries = 0;
        true
    }
}

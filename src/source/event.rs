//! Events of a proved request: its items, their values, and the proofs that they use up.

use std::time::Duration;

use super::Source;
use crate::attachment::Fetcher;
use crate::config::{OnUnmappable, ReplayWindow, Respond};
use crate::mapping::Mapped;
use crate::model::{ProofMark, Refusal, Strength, UsedProof, Verified};

impl Source {
    /// The items that a proved request brings. A request that is passed on stays whole: its caller waits for one answer.
    pub fn items(&self, verified: Verified) -> Result<Vec<Verified>, Refusal> {
        if self.passes_on() {
            Ok(vec![verified])
        } else {
            self.mapping.items(verified)
        }
    }

    /// Maps a proved request. A request that brings files, or names files that its channel keeps, needs no prompt.
    pub fn apply(&self, verified: &Verified, has_files: bool) -> Result<Mapped, Refusal> {
        let named = |channel: &Fetcher| !channel.named(&verified.request().body, 1).is_empty();
        self.mapping.apply(
            verified,
            has_files || self.channel.as_ref().is_some_and(named),
        )
    }

    /// Maps a proved request and loses nothing: a request that cannot be mapped is kept with the reason, so that an operator
    /// can mend the mapping and replay it. A caller who waits for an answer, or whose request is not proved, gets the
    /// error at once instead.
    pub fn apply_or_keep(&self, verified: &Verified, has_files: bool) -> Result<Mapped, Refusal> {
        self.apply(verified, has_files)
            .or_else(|refusal| match self.keeps(verified, &refusal) {
                true => Ok(self.mapping.unmapped(verified, refusal.cause())),
                false => Err(refusal),
            })
    }

    /// True if a request is kept although it cannot be mapped, for this reason.
    pub fn keeps(&self, verified: &Verified, refusal: &Refusal) -> bool {
        let config = &self.config;
        config.on_unmappable == OnUnmappable::Keep
            && config.respond == Respond::Ack
            && !matches!(
                verified.proof().strength,
                Strength::None | Strength::Observed(_)
            )
            && matches!(
                refusal,
                Refusal::Malformed(_) | Refusal::Unmappable(_) | Refusal::Unsupported(_)
            )
    }

    /// True if its requests are passed on and not kept.
    pub fn passes_on(&self) -> bool {
        matches!(self.config.respond, Respond::Proxy | Respond::Stream)
    }

    /// The proofs that a request uses up. None: nothing is proved, or the source allows repetition.
    pub fn uses(&self, verified: &Verified) -> Option<UsedProof> {
        let marks = &verified.proof().marks;
        if marks.is_empty() || self.replay_window == ReplayWindow::Lasts(Duration::ZERO) {
            return None;
        }
        // A caller who shows a secret can send the same request in other words, and a question that is asked twice wants
        // two answers.
        if self.passes_on()
            && matches!(verified.proof().strength, Strength::Token | Strength::Asked)
        {
            return None;
        }
        let at = verified.request().at;
        let until = match self.replay_window {
            // No event is kept that could hold it.
            ReplayWindow::Kept if self.passes_on() => Some(at + self.kept_for),
            ReplayWindow::Kept => None,
            ReplayWindow::Lasts(window) => Some(at + window),
        };
        let mut marks: Vec<ProofMark> = marks
            .iter()
            .map(|mark| mark.at_source(&self.config.name))
            .collect();
        marks.sort_unstable();
        marks.dedup();
        Some(UsedProof { marks, until })
    }

    /// The address that a proved request asks to be fetched before the provider sends events. None: it is an event.
    pub fn confirms(&self, verified: &Verified) -> Result<Option<String>, Refusal> {
        match &self.scheme.confirm {
            Some(confirm) => confirm.address(verified.request(), &self.scheme.document),
            None => Ok(None),
        }
    }
}

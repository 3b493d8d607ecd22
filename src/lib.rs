//! Sluicegate: signed webhooks in, one proper agent run out, nothing lost.

#[doc = "what must not be lost"]
pub mod inbox;

#[doc = "what the operator wrote"]
pub mod config;

#[doc = "the nouns; imports nothing of ours"]
pub mod model;

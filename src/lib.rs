//! Sluicegate: signed webhooks in, one proper agent run out, nothing lost.
//!
//! The way of an event. In, `ingress::receive`: find the source, ask the limits, read the body, answer a challenge,
//! prove the origin, map the body to params, accept it into the inbox, answer. Out, `dispatch`: claim, send, judge,
//! settle. The two meet in the inbox and nowhere else.
//!
//! The modules stand in order: each uses only what is listed below it.

#[doc = "what an operator types"]
pub mod cli;

#[doc = "the parts, built from a `Config`, started and drained"]
pub mod app;

#[doc = "a stand-in for the upstream's API, for trying out and for tests"]
pub mod stub;

#[doc = "the operator's listener"]
pub mod admin;

#[doc = "the public listener"]
pub mod ingress;

#[doc = "how much, how fast"]
pub mod limit;

#[doc = "who is calling"]
pub mod source;

#[doc = "what it says"]
pub mod mapping;

#[doc = "getting it there"]
pub mod dispatch;

#[doc = "the agent platform's API"]
pub mod upstream;

#[doc = "what must not be lost"]
pub mod inbox;

#[doc = "sockets"]
pub mod net;

#[doc = "what the program says about itself"]
pub mod telemetry;

#[doc = "what the operator wrote"]
pub mod config;

#[doc = "the nouns; imports nothing of ours"]
pub mod model;

//! Sluicegate: signed webhooks in, one proper agent run out, nothing lost.
//!
//! The way of an event. In, `ingress::receive`: find the source, ask the limits, read the body, answer a challenge,
//! prove the origin, map the body to params, accept it into the inbox, answer. Out, `dispatch`: claim, send, judge,
//! settle. The two meet in the inbox and nowhere else.
//!
//! The modules stand in order: each uses only what is listed below it.

// what an operator types
pub mod cli;

// the parts, built from a `Config`, started and drained
pub mod app;

// a stand-in for the upstream's API, for trying out and for tests
pub mod stub;

// the operator's listener
pub mod admin;

// what never arrived, from the provider's own log
pub mod reconcile;

// the public listener
pub mod ingress;

// from a proved request to events in the inbox
pub mod intake;

// who is calling
pub mod source;

// what proves it
pub mod verify;

// what it says
pub mod mapping;

// getting it there
pub mod dispatch;

// the agent platform's API
pub mod upstream;

// what must not be lost
pub mod inbox;

// how much, how fast
pub mod limit;

// files that came along
pub mod attachment;

// sockets
pub mod net;

// what the program says about itself
pub mod telemetry;

// what the operator wrote
pub mod config;

// JSON bodies: one reader of the grammar, and what is read with it
pub mod json;

// bytes as text: character sets, forms, parts
pub mod text;

// the nouns; imports nothing of ours
pub mod model;

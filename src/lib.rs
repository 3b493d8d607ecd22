//! Sluicegate: a gateway that takes signed webhooks, keeps each event on disk, and runs an agent once for it.
//!
//! In, `ingress`: find the source, apply the limits, read the body, answer a challenge, prove the origin, map the body to
//! params, commit the event to the inbox, answer. Out, `dispatch`: claim a delivery, send it, judge the result, settle it.
//!
//! The modules stand in order: each uses only modules below it. `docs/ARCHITECTURE.md` describes them.

// the commands: one variant, one file
pub mod cli;

// wiring: the parts, built from a `Config`, started, reloaded and drained
pub mod app;

// a stand-in for the upstream's API, for trying out and for tests
pub mod stub;

// the operator's listener: routes by noun, one match from errors to answers
pub mod admin;

// requests and answers of the admin API as types
pub mod api;

// events that never arrived, read from the log of the provider
pub mod reconcile;

// the public listener: doors, bodies, refusals, answers
pub mod ingress;

// from a proved and mapped request to events in the inbox
pub mod intake;

// the configured sources: routes, enrolment of secrets, trust in values, calls that a proof needs
pub mod source;

// proof of origin: schemes, signatures, keys, explanations
pub mod verify;

// from a document to params, type, thread and dedup key
pub mod mapping;

// from a claimed delivery to its settlement: throttle, attempt, verdict
pub mod dispatch;

// runs that begin at once: what each takes, and gives back if it does not begin
pub mod run;

// the agent platform's API: calls, answers, streams
pub mod upstream;

// chats that answers go back to, as data; pure
pub mod channel;

// events and deliveries that must not be lost
pub mod inbox;

// rates and buckets: each caller, the whole gateway, each source, door and key
pub mod limit;

// files that came along: store, links, fetching from channels
pub mod attachment;

// sockets: listener, HTTP guards, TLS, client, guarded downloads
pub mod net;

// log, metrics, samples of refused requests
pub mod telemetry;

// the file as written, with the place of every value
pub mod config;

// the readers of JSON
pub mod json;

// answers as messages of chats: Markdown in the dialect of a channel, cut to its limits; pure
pub mod render;

// bytes as text: character sets, forms, parts
pub mod text;

// the nouns
pub mod model;

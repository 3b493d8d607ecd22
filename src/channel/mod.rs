//! Channels: chats that answers go back to, as data.
//!
//! A provider file describes a channel in `[reply]`; [`ChannelSpec`] is that description, compiled. It reads the address of
//! an answer from an event, makes the calls, and judges their answers. [`ChannelReply`] is one answer on its way.
//!
//! The room decides and does nothing: it has no socket, no file and no clock. The caller makes the calls, keeps the replies
//! and brings the time.
//!
//! ```
//! use sluicegate::channel::{ChannelReply, ChannelSpec, NextStep, ReplyPart, ReplyPolicy, ReplyStart};
//! use sluicegate::config::reply::ReplyConfig;
//! use sluicegate::config::{Problems, Section, Table};
//! use sluicegate::model::Timestamp;
//!
//! let file = r#"
//! api     = "https://chat.example.com"
//! to.room = "json:room"
//! limit   = 4000
//! [[send]]
//! target = "/rooms/{room}/messages"
//! body   = { text = "{text}" }
//! "#;
//! let problems = Problems::default();
//! let table = Table::parse("chat.toml", file, &problems);
//! let written = ReplyConfig::read(&Section::new(&table, "reply", &problems));
//! let spec = ChannelSpec::compile(&written.expect("a section"), &problems).expect("no mistakes");
//!
//! let now = Timestamp::from_seconds(1_700_000_000);
//! let start = ReplyStart {
//!     id: "reply-1".into(),
//!     event_id: "event-1".into(),
//!     status: "completed".into(),
//!     received_at: now,
//!     address: Default::default(),
//!     placeholder: None,
//! };
//! let policy = ReplyPolicy { has_secret: true, repeats_unknown: false, max_age: std::time::Duration::from_secs(3600) };
//! let mut reply = ChannelReply::new(start, vec![ReplyPart::default()]);
//! let step = reply.next(&spec, policy, now);
//! assert!(matches!(step, NextStep::Send { way: 0, .. }));
//! reply.begin(&step, &spec, now);
//! // The payload is kept here, and the call is made. A crash at this point leaves the part in doubt:
//! let mut found = ChannelReply::read(&reply.payload()?)?;
//! assert_eq!(found.next(&spec, policy, now), NextStep::Unknown);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod address;
mod call;
mod check;
mod doc;
mod field;
mod path;
mod pattern;
mod registry;
mod reply;
mod spec;
mod template;
mod verdict;

#[cfg(test)]
mod tests;

pub use address::{AddressError, ReplyAddress};
pub use call::{CallContext, CallError, CallMessage, CallOf, ChannelCall, ChannelSecrets};
pub use doc::{ChannelDoc, OncePromise};
pub use field::EventFields;
pub use registry::{ChannelSource, Channels, SourceChannel};
pub use reply::{
    CallEnd, ChannelReply, CheckEnd, NextStep, OutgoingPart, PartState, ReplyPart, ReplyPolicy,
    ReplyResolution, ReplyStart, SideEffects,
};
pub use spec::{ChannelSpec, KeyProof, PaceLimit, ProofEnd};
pub use template::FillError;
pub use verdict::{ChannelAnswer, ChannelVerdict, Judgement, WaitScope};

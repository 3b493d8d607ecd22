//! Channels: chats that answers go back to, as data.
//!
//! A provider file describes a channel in `[reply]`; [`ChannelSpec`] is that description, compiled. It reads the address of
//! an answer from an event, makes the calls, and judges their answers. [`ChannelReply`] is one answer on its way.
//!
//! The room decides and does nothing: it has no socket, no file and no clock. The caller makes the calls, keeps the replies
//! and brings the time.

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

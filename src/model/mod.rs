//! The nouns: what every other module talks about. Imports nothing of ours.

pub mod account;
pub mod attachment;
pub mod attempt;
pub mod block;
pub mod client_certificate;
pub mod clock;
pub mod delivery;
pub mod event;
pub mod filter;
pub mod hosted;
pub mod id;
pub mod lookalike;
pub mod marks;
pub mod naming;
pub mod network;
pub mod outcome;
pub mod params;
pub mod refusal;
pub mod request;
pub mod role;

pub use account::{Account, Class};
pub use attachment::{Attachment, AttachmentId};
pub use attempt::{Attempt, AttemptResult, Lookup, Run, RunStatus};
pub use block::Block;
pub use client_certificate::{CertificatePattern, ClientCertificate, InvalidPattern};
pub use clock::{Clock, Timestamp};
pub use delivery::{DeliveryState, Destination, DestinationKind, Overlap, OverlapMode, Route};
pub use event::{Accepted, Backlog, NewDelivery, NewEvent};
pub use filter::FilterWords;
pub use hosted::{HostedCall, Setting, Tokens};
pub use id::{DeliveryId, EventId, RequestId, is_agent_id};
pub use marks::Marks;
pub use naming::UpstreamIds;
pub use network::{bucket, network};
pub use outcome::Outcome;
pub use params::{Backing, Name, Origin, Param, Params, TextNotes};
pub use refusal::{OriginFault, Refusal};
pub use request::{
    ENROL, Proof, ProofMark, Received, Strength, TakenForm, TokenClaims, UsedProof, Verified,
    Verify,
};
pub use role::{Role, Roles, UnknownRole};

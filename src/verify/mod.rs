//! Proofs of origin: a `[verify]` table compiled into a [`Scheme`], and requests judged by it.
//!
//! How a provider signs is data (`config/providers`), compiled when the configuration is read; no provider's name stands
//! in this module. Everything that is wrong with a table comes out at once.

mod body_kinds;
mod challenge;
mod compile;
mod content;
mod coverage;
mod document;
mod dry_run;
mod explain;
mod field;
mod forward_auth;
mod inflate;
mod judge;
mod keys;
mod lint;
mod mark;
mod redact;
mod scheme;
mod shared_secret;
mod sign;
mod signature;
mod signing_oracle;
mod streamed;
#[cfg(test)]
pub(crate) mod tests;
mod text_overlap;
mod tolerance;

pub use self::challenge::ChallengeResponse;
pub(crate) use self::challenge::{Challenge, allowed_methods};
pub(crate) use self::compile::compile_source;
pub use self::dry_run::{CheckConfig, DryRun, DryRunResult};
pub(crate) use self::forward_auth::ForwardAuthProof;
pub use self::forward_auth::Prepared;
pub(crate) use self::inflate::inflated as inflated_body;
pub use self::inflate::most_inflated;
pub use self::keys::certificate::WebClient;
pub(crate) use self::keys::mac::same;
pub use self::keys::pair::KeyPair;
pub use self::lint::reasons;
pub use self::redact::RedactedRequest;
pub(crate) use self::redact::redacted;
pub use self::scheme::Scheme;
pub use self::sign::Signer;
pub(crate) use self::streamed::StreamedCheck;

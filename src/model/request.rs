//! A request before and after its origin is proved.
//!
//! The one way from [`Received`] to [`Verified`] is [`Received::verify`], which asks something that implements
//! [`Verify`]. What stands behind the check takes a `Verified`, so a request nobody checked cannot reach it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest as _, Sha256};

use super::{ClientCertificate, OriginFault, Refusal, RequestId, TextNotes, Timestamp};

/// The field of the query that opens the window in which a handshake may bring a source's secret. It stays in the address
/// that the provider was given, and says nothing of an event.
pub const ENROL: &str = "enrol";

/// A request as it came: the bytes are the ones that were signed.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its name in logs and in the answer to a refusal.
    pub id: RequestId,
    /// Time at which its head was read.
    pub at: Timestamp,
    /// The method.
    pub method: Method,
    /// Path and query, as they stood in the request line.
    pub target: String,
    /// The address the sender knows: the configured public URL and the target. Never built from `Host`.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Address of the caller, behind trusted proxies.
    pub peer: IpAddr,
    /// Client certificate of the connection, checked by the TLS listener.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Received {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query, without its question mark; empty without a query.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// A header's value as text; absent when it is missing or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Proves the origin, or says why not. `now` is the time that time stamps are judged by.
    pub fn verify(
        self,
        scheme: &dyn Verify,
        now: Timestamp,
    ) -> Result<Verified, Box<(Self, Refusal)>> {
        match scheme.judge(&self, now) {
            Ok(proof) => {
                let claims = scheme.claims(&self);
                let mut verified = Verified {
                    received: self,
                    proof,
                    claims: None,
                    form: None,
                };
                if let Some(claims) = claims {
                    if claims.is_body {
                        verified.received.body = claims.json.clone();
                        let json = HeaderValue::from_static("application/json");
                        verified.received.headers.insert(CONTENT_TYPE, json);
                    }
                    verified.claims = Some(claims.json);
                }
                Ok(verified)
            }
            Err(refusal) => Err(Box::new((self, refusal))),
        }
    }
}

/// Something that can prove where a request came from.
pub trait Verify {
    /// Judges a request by its raw bytes.
    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal>;

    /// The claims of the signed token of a proved request; `None` without a token.
    fn claims(&self, _: &Received) -> Option<TokenClaims> {
        None
    }
}

/// Claims of a signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// The claims, as they were signed.
    pub json: Bytes,
    /// True if the token is the whole body, so that its claims take the body's place.
    pub is_body: bool,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Strength of the proof.
    pub strength: Strength,
    /// The name of the secret that matched, never its value; none where the scheme has none.
    pub secret: Option<String>,
    /// Marks of the proof, one for each thing that was proved; empty if the proof may be shown again.
    pub marks: Vec<ProofMark>,
}

/// Mark of a proof: a digest of what was signed, and never of how the signature is written. Two
/// requests with the same mark show the same proof, so the second one is no news, whatever stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofMark(pub [u8; 32]);

impl ProofMark {
    /// The mark of one item of a request that brings several: the first one's is that of the request.
    pub fn of_item(self, place: usize) -> Self {
        if place == 0 {
            return self;
        }
        let mut digest = Sha256::new_with_prefix(b"item\0");
        digest.update((place as u64).to_be_bytes());
        digest.update(self.0);
        Self(digest.finalize().into())
    }

    /// The same mark for one source: what was proved to one says nothing to another.
    pub fn at_source(self, source: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(source.as_bytes());
        // No name of a source has this byte in it.
        digest.update([0]);
        digest.update(self.0);
        Self(digest.finalize().into())
    }
}

/// The proofs that an event uses up, and how long they count as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedProof {
    /// The marks, at the event's source.
    pub marks: Vec<ProofMark>,
    /// Until when; none: as long as the event is kept.
    pub until: Option<Timestamp>,
}

/// Strength of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// The sender and every byte of the body.
    Signed,
    /// The sender, by a signature that does not cover the whole body.
    Origin,
    /// The sender, by a shared value that says nothing about the body.
    Token,
    /// The sender, on the word of another service that the operator has asked.
    Asked,
    /// The sender and every byte of the body: nobody sent it, it was read from the provider's own API, over TLS and
    /// under the operator's token.
    Fetched,
    /// An operator, who sent it by hand.
    Operator,
    /// Nothing: the source checks nobody.
    None,
    /// Nothing: the check failed, and the source lets such requests pass to see what it would refuse.
    Observed(OriginFault),
}

impl Strength {
    /// The verdict: `verified`, `authenticated` (who, but not what), `observed` (nobody was refused).
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Signed | Self::Fetched => "verified",
            Self::Origin | Self::Token | Self::Asked | Self::Operator => "authenticated",
            Self::None | Self::Observed(_) => "observed",
        }
    }

    /// A stable word for storage and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Asked => "asked",
            Self::Fetched => "fetched",
            Self::Operator => "operator",
            Self::None => "none",
            Self::Observed(fault) => fault.observed(),
        }
    }
}

/// A request whose origin is proved.
#[derive(Clone, Debug)]
pub struct Verified {
    received: Received,
    proof: Proof,
    claims: Option<Bytes>,
    form: Option<TakenForm>,
}

/// A form that was taken apart while its request came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenForm {
    /// The text parts, in order.
    pub fields: Vec<(String, String)>,
    /// Notes on how they were read.
    pub notes: TextNotes,
}

impl Verified {
    /// The form whose fields stand in the place of the body, where there was one.
    pub const fn form(&self) -> Option<&TakenForm> {
        self.form.as_ref()
    }

    /// The claims of the signed token, as JSON, where the scheme has one.
    pub const fn claims(&self) -> Option<&Bytes> {
        self.claims.as_ref()
    }

    /// The same request with another form of its body: the one it had before it was compressed.
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.received.body = body;
        self.received.headers.remove(CONTENT_ENCODING);
        self
    }

    /// The same request with the fields of its form, as JSON, in the place of the body that they were taken from.
    pub fn with_fields(mut self, json: Bytes, form: TakenForm) -> Self {
        self.received.body = json;
        self.form = Some(form);
        self.received
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// One item of a request that brings several, with a document of its own in the place of the body.
    pub fn item(&self, place: usize, document: Bytes, form: TakenForm) -> Self {
        let mut item = self.clone().with_fields(document, form);
        item.received.headers.remove(CONTENT_ENCODING);
        item.proof.marks = self
            .proof
            .marks
            .iter()
            .map(|mark| mark.of_item(place))
            .collect();
        item
    }

    /// The proved request.
    pub const fn request(&self) -> &Received {
        &self.received
    }

    /// The result of the check.
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Takes the request back out.
    pub fn into_parts(self) -> (Received, Proof) {
        (self.received, self.proof)
    }
}

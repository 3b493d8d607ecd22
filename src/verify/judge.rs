//! Runs a scheme over a request, at a given time.
//!
//! The order is fixed: the signature first, over the bytes as they came; then what has to equal; then the time. An
//! error says what was wrong, never what would have been right.

use std::borrow::Cow;

use http::header::CONTENT_ENCODING;

use super::content::{ContentTemplate, Context};
use super::document::Json;
use super::field::RequestView;
use super::inflate::{self, Compressed};
use super::keys::certificate::{Certificates, Need, WebClient};
use super::keys::mac::{Algorithm, FinishedDigest, Key, RunningDigest, same};
use super::mark;
use super::scheme::{AlgorithmChoice, KeyMaterial, Mechanism, Scheme, Signed, SignedItems};
use super::signature::ProofError;
use super::signing_oracle;
use crate::model::{
    OriginFault, Proof, ProofMark, Received, Refusal, Strength, Timestamp, TokenClaims, Verify,
};

/// How many items of a list are proved one by one.
const MOST_ITEMS: usize = 1000;

/// A certificate that is fetched: of whose, from where, and why.
type WantedCertificate<'s> = (&'s Certificates, String, Need);

impl Verify for Scheme {
    fn claims(&self, received: &Received) -> Option<TokenClaims> {
        match self.way(&RequestView::new(received, &self.document)) {
            Ok(Mechanism::Jwt(jwt)) => jwt.claims(received),
            _ => None,
        }
    }

    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        let request = RequestView::new(received, &self.document);
        self.way(&request)
            .and_then(|way| way.judge(&request, now))
            .and_then(|proof| match self.compressed {
                // The kind of a body that is compressed is judged when it is inflated.
                Some(Compressed::AsReceived) if received.headers.contains_key(CONTENT_ENCODING) => {
                    Ok(proof)
                }
                _ => self.bodies.judge(received).map(|()| proof),
            })
            .map_err(|(fault, cause)| Refusal::Origin(fault, cause))
    }
}

impl Scheme {
    /// The request with the body that is signed: of a compressed one perhaps what it was before.
    pub(crate) fn opened(&self, mut received: Received) -> Result<Received, Refusal> {
        if self.compressed == Some(Compressed::Inflated)
            && let Some(body) = inflate::inflated(&received.headers, &received.body)?
        {
            received.body = body;
            received.headers.remove(CONTENT_ENCODING);
        }
        Ok(received)
    }

    /// Has at hand what judging a request takes: fetches the certificate that it names, where its scheme wants one and
    /// the request is right in everything that can be told without. An error is a refusal.
    pub async fn prepare(
        &self,
        received: &Received,
        fetch: &dyn WebClient,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if !self.fetches() {
            return Ok(());
        }
        let wanted = {
            let request = RequestView::new(received, &self.document);
            let way = self
                .way(&request)
                .map_err(|(fault, cause)| Refusal::Origin(fault, cause))?;
            way.wants(&request, now)
                .map_err(|(fault, cause)| Refusal::Origin(fault, cause))?
        };
        let Some((certificates, address, need)) = wanted else {
            return Ok(());
        };
        match certificates
            .fetch(&address, received.peer, fetch, now)
            .await
        {
            Err(what) if need == Need::Missing => {
                let cause = format!("the certificate at {address} cannot be had: {what}");
                // No fault of the sender's; it may try again.
                Err(Refusal::Origin(OriginFault::UnknownKey, cause).answered(503))
            }
            // The one at hand still holds.
            _ => Ok(()),
        }
    }

    /// Whether requests may name certificates that have to be fetched.
    fn fetches(&self) -> bool {
        let ways = std::iter::once(&self.base).chain(self.variants.iter().map(|(_, way)| way));
        ways.into_iter().any(|way| match way {
            Mechanism::Signed(signed) => {
                matches!(&signed.prove, KeyMaterial::Public { certificates: Some(_), keys, .. } if keys.is_empty())
            }
            _ => false,
        })
    }

    /// The variant that this request chooses, or the base.
    pub(crate) fn way(&self, request: &RequestView<'_>) -> Result<&Mechanism, ProofError> {
        'variants: for (when, way) in &self.variants {
            for (field, want) in when {
                if !want.holds(field, request).map_err(missing)? {
                    continue 'variants;
                }
            }
            return Ok(way);
        }
        Ok(&self.base)
    }
}

impl Mechanism {
    fn judge(&self, request: &RequestView<'_>, now: Timestamp) -> Result<Proof, ProofError> {
        let mut marks = Vec::new();
        let (secret, strength) = match self {
            Self::Open => {
                return Ok(Proof {
                    strength: Strength::None,
                    secret: None,
                    marks: Vec::new(),
                });
            }
            Self::Ask(ask) => {
                let cause = format!(
                    "nobody has asked {}: only a running gateway does",
                    ask.told()
                );
                return Err((OriginFault::NotAttempted, cause));
            }
            Self::Basic(basic) => (basic.judge(request)?.name().to_owned(), Strength::Token),
            Self::Token(token, each) => {
                let judge = |item| token.judge(request, item).map(|key| key.name().to_owned());
                (each_item(each.as_ref(), request, judge)?, Strength::Token)
            }
            Self::Signed(signed) => {
                let judge = |item| {
                    let (name, mark) = signed.judge(request, item, now)?;
                    marks.push(mark);
                    Ok(name)
                };
                (
                    each_item(signed.each.as_ref(), request, judge)?,
                    signed.strength,
                )
            }
            Self::Jwt(jwt) => {
                let token = jwt.judge(request, now)?;
                marks.push(jwt.mark(request, &token.signed));
                (token.name, jwt.strength)
            }
        };
        if let Self::Basic(_) | Self::Token(..) = self {
            marks.push(mark::of_shown(request, self.shown()));
        }
        Ok(Proof {
            strength,
            secret: Some(secret),
            marks,
        })
    }

    /// The certificate that has to be fetched before a request is judged; none where it is at hand, or none is needed. An
    /// error when the request would be refused whatever the certificate.
    pub(crate) fn wants(
        &self,
        request: &RequestView<'_>,
        now: Timestamp,
    ) -> Result<Option<WantedCertificate<'_>>, ProofError> {
        match self {
            Self::Signed(signed) => signed.wants(request, now),
            _ => Ok(None),
        }
    }
}

/// Proves every item of a list, or the request itself where there is none, and says what the first one's key goes by.
/// A list without items proves nothing.
fn each_item<'q>(
    each: Option<&SignedItems>,
    request: &'q RequestView<'_>,
    mut judge: impl FnMut(Option<&'q Json>) -> Result<String, ProofError>,
) -> Result<String, ProofError> {
    let Some(each) = each else { return judge(None) };
    let items = match request.json().map_err(missing)?.at(&each.list) {
        Some(Json::List(items)) if items.len() > MOST_ITEMS => {
            return Err((
                OriginFault::MalformedSignature,
                format!("more than {MOST_ITEMS} items to prove"),
            ));
        }
        Some(Json::List(items)) => items.as_slice(),
        _ => &[],
    };
    let mut proved = None;
    for item in items {
        let item = item
            .at(&each.rest)
            .ok_or_else(|| missing("a signed item is missing".into()))?;
        let key = judge(Some(item))?;
        proved.get_or_insert(key);
    }
    proved.ok_or_else(|| {
        (
            OriginFault::MissingSignature,
            "there is no item to prove".into(),
        )
    })
}

/// The key that made a signature.
struct Matched<'s> {
    name: Cow<'s, str>,
    /// Itself, where it is a shared secret.
    secret: Option<&'s Key>,
    /// The text that it signed.
    content: &'s ContentTemplate,
}

impl Signed {
    /// What the key goes by that made one of the signatures, and the mark of what it signed.
    fn judge<'q>(
        &self,
        request: &'q RequestView<'_>,
        item: Option<&'q Json>,
        now: Timestamp,
    ) -> Result<(String, ProofMark), ProofError> {
        let groups = self.grammar.find(request, item)?;
        let mut fault = None;
        for group in groups.iter().filter(|group| !group.candidates.is_empty()) {
            let mut context = Context {
                request,
                item,
                fields: &group.fields,
                ts: None,
                key: None,
            };
            let ts = match self.time(&context) {
                Ok(ts) => ts,
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                    continue;
                }
            };
            context.ts = ts.as_deref();
            let algorithm = match self.algorithm.of(&context) {
                Ok(algorithm) => algorithm,
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                    continue;
                }
            };
            match self.matching(context, algorithm, &group.candidates, now) {
                Ok(key) => {
                    context.key = key.secret;
                    self.hold(&context)?;
                    if !self.asked.is_empty() {
                        signing_oracle::refuse(
                            &self.asked,
                            &key.content.message(&context).map_err(missing)?,
                        )?;
                    }
                    if let (Some(stamp), Some(ts)) = (&self.stamp, context.ts) {
                        stamp.window.judge(ts, now)?;
                    }
                    let mark = self.mark(key.content, &context).map_err(missing)?;
                    return Ok((key.name.into_owned(), mark));
                }
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                }
            }
        }
        Err(fault.unwrap_or_else(|| {
            (
                OriginFault::MissingSignature,
                "there is no signature".into(),
            )
        }))
    }

    /// The time as it was sent, where there is one.
    pub(crate) fn time<'c>(
        &self,
        context: &Context<'c, '_>,
    ) -> Result<Option<Cow<'c, [u8]>>, ProofError> {
        let Some(stamp) = &self.stamp else {
            return Ok(None);
        };
        match context
            .text(&stamp.from)
            .map_err(missing)?
            .filter(|ts| !ts.is_empty())
        {
            Some(ts) => Ok(Some(ts)),
            None => Err((
                OriginFault::BadTimestamp,
                format!("there is no one time stamp in {}", stamp.from),
            )),
        }
    }

    /// What has to be fetched. Everything that can be judged without it is, so that a request which is refused anyway
    /// makes nothing happen.
    fn wants(
        &self,
        request: &RequestView<'_>,
        now: Timestamp,
    ) -> Result<Option<WantedCertificate<'_>>, ProofError> {
        let KeyMaterial::Public {
            certificates: Some(certificates),
            keys,
            ..
        } = &self.prove
        else {
            return Ok(None);
        };
        // With a certificate from the operator nothing is fetched.
        if !keys.is_empty() {
            return Ok(None);
        }
        let groups = self.grammar.find(request, None)?;
        let fields = groups
            .iter()
            .find(|group| !group.candidates.is_empty())
            .map_or(&[][..], |group| &group.fields);
        let mut context = Context {
            request,
            item: None,
            fields,
            ts: None,
            key: None,
        };
        let ts = self.time(&context)?;
        context.ts = ts.as_deref();
        self.algorithm.of(&context)?;
        self.hold(&context)?;
        if let (Some(stamp), Some(ts)) = (&self.stamp, context.ts) {
            stamp.window.judge(ts, now)?;
        }
        let address = certificates.address(&context)?;
        Ok(certificates
            .need(&address, now)
            .map(|need| (&**certificates, address, need)))
    }

    /// Tries every text with every key against every candidate.
    fn matching<'s>(
        &'s self,
        context: Context<'_, '_>,
        algorithm: Algorithm,
        candidates: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Matched<'s>, ProofError> {
        match &self.prove {
            KeyMaterial::Hmac(keys) | KeyMaterial::Plain(keys) => {
                let keyed = matches!(self.prove, KeyMaterial::Hmac(_));
                self.digested(context, keys, keyed, algorithm, candidates)
            }
            KeyMaterial::Public {
                kind,
                keys,
                certificates,
                ..
            } => {
                let fetched;
                let mut named = None;
                let keys = match certificates {
                    Some(certificates) if keys.is_empty() => {
                        let address = certificates.address(&context)?;
                        fetched = certificates.at_hand(&address, now).ok_or_else(|| {
                            (
                                OriginFault::UnknownKey,
                                "the certificate it names is not at hand".to_owned(),
                            )
                        })?;
                        named = Some((certificates, address));
                        std::slice::from_ref(&*fetched)
                    }
                    _ => keys.as_slice(),
                };
                let held: Vec<_> = keys.iter().filter(|key| key.holds_at(now)).collect();
                if held.is_empty() {
                    let fault = if keys.is_empty() {
                        (
                            OriginFault::NotAttempted,
                            "this source has no public key yet".to_owned(),
                        )
                    } else {
                        (
                            OriginFault::UnknownKey,
                            "the certificate does not hold now".to_owned(),
                        )
                    };
                    return Err(fault);
                }
                let mut absent = None;
                let mut compared = false;
                for content in &self.contents {
                    match content.message(&context) {
                        Ok(message) => {
                            compared = true;
                            let made = |key: &&&super::keys::public::PublicKey| {
                                candidates.iter().any(|signature| {
                                    key.proves(*kind, algorithm, &message, signature)
                                })
                            };
                            if let Some(key) = held.iter().find(made) {
                                if let Some((certificates, address)) = &named {
                                    certificates.proved(address, now);
                                }
                                let name = Cow::Owned(key.name.clone());
                                return Ok(Matched {
                                    name,
                                    secret: None,
                                    content,
                                });
                            }
                        }
                        Err(what) => {
                            absent.get_or_insert(what);
                        }
                    }
                }
                Err(unmatched(absent, compared))
            }
        }
    }

    fn digested<'s>(
        &'s self,
        context: Context<'_, '_>,
        keys: &'s [Key],
        keyed: bool,
        algorithm: Algorithm,
        candidates: &[Vec<u8>],
    ) -> Result<Matched<'s>, ProofError> {
        if keys.is_empty() {
            return Err((
                OriginFault::NotAttempted,
                "this source has no secret yet".into(),
            ));
        }
        let (mut absent, mut compared) = (None, false);
        for content in &self.contents {
            for key in keys {
                let mut digest = if keyed {
                    key.hmac(algorithm)
                } else {
                    RunningDigest::plain(algorithm)
                };
                let tried = Context {
                    key: Some(key),
                    ..context
                };
                match content.feed(&tried, &mut |bytes| digest.take(bytes)) {
                    Ok(()) => {
                        compared = true;
                        if is_one_of(&digest.finish(), candidates) {
                            return Ok(Matched {
                                name: Cow::Borrowed(key.name()),
                                secret: Some(key),
                                content,
                            });
                        }
                    }
                    Err(what) => {
                        absent.get_or_insert(what);
                        break;
                    }
                }
            }
        }
        Err(unmatched(absent, compared))
    }

    /// Checks what has to equal, and what must not stand in the fields of the signed text.
    pub(crate) fn hold(&self, context: &Context<'_, '_>) -> Result<(), ProofError> {
        for (field, text) in &self.without {
            let found = context.text(field).map_err(missing)?.unwrap_or_default();
            if found
                .windows(text.len())
                .any(|part| part == text.as_slice())
            {
                let cause =
                    format!("{field} holds the text that parts the fields of what is signed");
                return Err((OriginFault::ClaimMismatch, cause));
            }
        }
        for (a, b) in &self.equal {
            let bytes = (
                a.bytes(context).map_err(missing)?,
                b.bytes(context).map_err(missing)?,
            );
            if !same(&bytes.0, &bytes.1) {
                return Err(if a.holds_body() || b.holds_body() {
                    (
                        OriginFault::BodyChanged,
                        "the body is not the one whose digest is signed".into(),
                    )
                } else {
                    (
                        OriginFault::ClaimMismatch,
                        "a signed value is not the one it has to equal".into(),
                    )
                });
            }
        }
        Ok(())
    }
}

/// Why nothing matched.
pub(crate) fn unmatched(absent: Option<String>, compared: bool) -> ProofError {
    match absent {
        Some(what) if !compared => missing(what),
        _ => (
            OriginFault::WrongSignature,
            "no secret of this source makes this signature: the secret is another, or what was signed was changed"
                .into(),
        ),
    }
}

/// Whether a digest is among the candidates; all of them are compared.
pub(crate) fn is_one_of(tag: &FinishedDigest, candidates: &[Vec<u8>]) -> bool {
    candidates
        .iter()
        .fold(false, |hit, candidate| tag.is(candidate) | hit)
}

impl AlgorithmChoice {
    pub(crate) fn of(&self, context: &Context<'_, '_>) -> Result<Algorithm, ProofError> {
        let (from, map) = match self {
            Self::One(algorithm) => return Ok(*algorithm),
            Self::Listed(from, map) => (from, map),
        };
        let word = context
            .text(from)
            .map_err(missing)?
            .ok_or_else(|| missing(format!("{from} is missing")))?;
        map.iter()
            .find(|(text, _)| text.as_bytes() == &*word)
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| {
                (
                    OriginFault::MalformedSignature,
                    format!("{from} names an algorithm that is not allowed"),
                )
            })
    }
}

pub(crate) fn missing(what: String) -> ProofError {
    (OriginFault::MissingPart, what)
}

//! Check of a signature over a text of the request.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{OriginFault, ProofMark, Timestamp};
use crate::verify::challenge::signing_oracle;
use crate::verify::keys::certificate::Certificates;
use crate::verify::keys::mac::{Algorithm, FinishedDigest, Key, same};
use crate::verify::keys::public::PublicKey;
use crate::verify::proof_error::{ProofError, missing, no_signature};
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::scheme::key_material::{KeyMaterial, PublicKeys};
use crate::verify::scheme::signed::Signed;
use crate::verify::template::ContentTemplate;
use crate::verify::template::render::Context;

/// The key that made a signature.
pub(super) struct Matched<'s> {
    name: Cow<'s, str>,
    /// Itself, where it is a shared secret.
    secret: Option<&'s Key>,
    /// The text that it signed.
    content: &'s ContentTemplate,
}

/// A certificate that a request names and that is at hand.
struct NamedCertificate<'s> {
    certificates: &'s Certificates,
    address: String,
    key: Arc<PublicKey>,
}

/// A time as it was sent.
type SentTime<'c> = Cow<'c, [u8]>;

impl Signed {
    /// Proves a request, or one item of its list: the name of the key, and the mark of the signed text.
    pub(super) fn judge<'q>(
        &self,
        request: &'q RequestTexts<'_>,
        item: Option<&'q Json>,
        now: Timestamp,
    ) -> Result<(String, ProofMark), ProofError> {
        let groups = self.grammar.find(request, item)?;
        let mut fault = None;
        for group in groups.iter().filter(|group| !group.candidates.is_empty()) {
            let mut context = Context {
                item,
                fields: &group.fields,
                ..Context::new(request)
            };
            let ts;
            let matched = match self.time_and_algorithm(&context) {
                Ok((found, algorithm)) => {
                    ts = found;
                    context.ts = ts.as_deref();
                    self.matching(context, algorithm, &group.candidates, now)
                }
                Err(wrong) => Err(wrong),
            };
            match matched {
                Ok(key) => return self.accept(key, context, now),
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                }
            }
        }
        Err(fault.unwrap_or_else(no_signature))
    }

    /// Checks what has to hold besides the signature.
    fn accept<'a>(
        &self,
        key: Matched<'a>,
        mut context: Context<'a, '_>,
        now: Timestamp,
    ) -> Result<(String, ProofMark), ProofError> {
        context.key = key.secret;
        self.hold(&context)?;
        if !self.asked.is_empty() {
            let message = key.content.message(&context).map_err(missing)?;
            signing_oracle::refuse(&self.asked, &message)?;
        }
        self.check_time(&context, now)?;
        let mark = self.mark(key.content, &context).map_err(missing)?;
        Ok((key.name.into_owned(), mark))
    }

    /// The time as it was sent, and the digest algorithm.
    pub(crate) fn time_and_algorithm<'c>(
        &self,
        context: &Context<'c, '_>,
    ) -> Result<(Option<SentTime<'c>>, Algorithm), ProofError> {
        Ok((self.time(context)?, self.algorithm.of(context)?))
    }

    /// The time as it was sent, where there is one.
    pub(crate) fn time<'c>(
        &self,
        context: &Context<'c, '_>,
    ) -> Result<Option<SentTime<'c>>, ProofError> {
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
                format!("{} does not hold one time stamp", stamp.from),
            )),
        }
    }

    /// Checks the time of a request against the tolerance.
    pub(super) fn check_time(
        &self,
        context: &Context<'_, '_>,
        now: Timestamp,
    ) -> Result<(), ProofError> {
        match (&self.stamp, context.ts) {
            (Some(stamp), Some(ts)) => stamp.window.judge(ts, now),
            _ => Ok(()),
        }
    }

    /// Tries every text with every key against every candidate.
    fn matching<'s>(
        &'s self,
        context: Context<'_, '_>,
        algorithm: Algorithm,
        candidates: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Matched<'s>, ProofError> {
        match &self.keys {
            KeyMaterial::Hmac(keys) | KeyMaterial::Plain(keys) => {
                self.digested(context, keys, algorithm, candidates)
            }
            KeyMaterial::Public(public) => {
                self.signed_by(public, context, algorithm, candidates, now)
            }
        }
    }

    /// Tries every text with every public key against every candidate.
    fn signed_by<'s>(
        &'s self,
        public: &'s PublicKeys,
        context: Context<'_, '_>,
        algorithm: Algorithm,
        candidates: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Matched<'s>, ProofError> {
        let named = match self.keys.certificates() {
            Some(certificates) => Some(named_certificate(certificates, &context, now)?),
            None => None,
        };
        let keys = match &named {
            Some(named) => std::slice::from_ref(&*named.key),
            None => public.keys.as_slice(),
        };
        let valid = valid_keys(keys, now)?;
        let (mut absent, mut compared) = (None, false);
        for content in &self.contents {
            let message = match content.message(&context) {
                Ok(message) => message,
                Err(what) => {
                    absent.get_or_insert(what);
                    continue;
                }
            };
            compared = true;
            let made = |key: &&&PublicKey| {
                candidates
                    .iter()
                    .any(|signature| key.proves(public.algorithm, algorithm, &message, signature))
            };
            if let Some(key) = valid.iter().find(made) {
                if let Some(named) = &named {
                    named.certificates.proved(&named.address, now);
                }
                return Ok(Matched {
                    name: Cow::Owned(key.name.clone()),
                    secret: None,
                    content,
                });
            }
        }
        Err(unmatched(absent, compared))
    }

    fn digested<'s>(
        &'s self,
        context: Context<'_, '_>,
        keys: &'s [Key],
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
                let mut digest = self.keys.digest(key, algorithm);
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

    /// Checks the values that must equal, and the texts that fields must not hold.
    pub(crate) fn hold(&self, context: &Context<'_, '_>) -> Result<(), ProofError> {
        for (field, text) in &self.without {
            let found = context.text(field).map_err(missing)?.unwrap_or_default();
            if found
                .windows(text.len())
                .any(|part| part == text.as_slice())
            {
                let cause = format!("{field} holds the separator of the signed fields");
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

/// The certificate that a request names, where it is at hand.
fn named_certificate<'s>(
    certificates: &'s Certificates,
    context: &Context<'_, '_>,
    now: Timestamp,
) -> Result<NamedCertificate<'s>, ProofError> {
    let address = certificates.address(context)?;
    match certificates.at_hand(&address, now) {
        Some(key) => Ok(NamedCertificate {
            certificates,
            address,
            key,
        }),
        None => Err((
            OriginFault::UnknownKey,
            "the certificate that it names is not at hand".to_owned(),
        )),
    }
}

/// The keys that are valid now.
fn valid_keys(keys: &[PublicKey], now: Timestamp) -> Result<Vec<&PublicKey>, ProofError> {
    let valid: Vec<_> = keys.iter().filter(|key| key.holds_at(now)).collect();
    match (keys.is_empty(), valid.is_empty()) {
        (true, _) => Err((
            OriginFault::NotAttempted,
            "this source has no public key yet".to_owned(),
        )),
        (false, true) => Err((
            OriginFault::UnknownKey,
            "the certificate is not valid now".to_owned(),
        )),
        (false, false) => Ok(valid),
    }
}

/// The error where no signature matched.
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

/// True if a digest is among the candidates; all of them are compared.
pub(crate) fn is_one_of(tag: &FinishedDigest, candidates: &[Vec<u8>]) -> bool {
    candidates
        .iter()
        .fold(false, |hit, candidate| tag.is(candidate) | hit)
}

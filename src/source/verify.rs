//! Runs a scheme over a request, at a given time.
//!
//! The order is fixed: the signature first, over the bytes as they came; then what has to equal; then the time. An
//! error says what was wrong, never what would have been right.

use super::content::Context;
use super::document::Json;
use super::field::Request;
use super::mac::{Algorithm, Key, Running, Tag, same};
use super::scheme::{Choice, Each, Scheme, Signed, Way};
use super::signature::Fault;
use crate::model::{OriginFault, Proof, Received, Refusal, Strength, Timestamp, Verify};

/// How many items of a list are proved one by one.
const MOST_ITEMS: usize = 1000;

impl Verify for Scheme {
    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        let request = Request::new(received, &self.document);
        self.way(&request)
            .and_then(|way| way.judge(&request, now))
            .map_err(|(fault, cause)| Refusal::Origin(fault, cause))
    }
}

impl Scheme {
    /// The variant that this request chooses, or the base.
    pub(super) fn way(&self, request: &Request<'_>) -> Result<&Way, Fault> {
        for (when, way) in &self.variants {
            if request.text(when, None).map_err(missing)?.is_some() {
                return Ok(way);
            }
        }
        Ok(&self.base)
    }
}

impl Way {
    fn judge(&self, request: &Request<'_>, now: Timestamp) -> Result<Proof, Fault> {
        let (key, strength) = match self {
            Self::Open => return Ok(Proof { strength: Strength::None, secret: None }),
            Self::Basic(basic) => (basic.judge(request)?, Strength::Token),
            Self::Token(token, each) => {
                (each_item(each.as_ref(), request, |item| token.judge(request, item))?, Strength::Token)
            }
            Self::Digest(signed) => {
                (each_item(signed.each.as_ref(), request, |item| signed.judge(request, item, now))?, signed.strength)
            }
        };
        Ok(Proof { strength, secret: Some(key.name().to_owned()) })
    }
}

/// Proves every item of a list, or the request itself where there is none. A list without items proves nothing.
fn each_item<'k, 'q>(
    each: Option<&Each>,
    request: &'q Request<'_>,
    mut judge: impl FnMut(Option<&'q Json>) -> Result<&'k Key, Fault>,
) -> Result<&'k Key, Fault> {
    let Some(each) = each else { return judge(None) };
    let items = match request.json().map_err(missing)?.at(&each.list) {
        Some(Json::List(items)) if items.len() > MOST_ITEMS => {
            return Err((OriginFault::MalformedSignature, format!("more than {MOST_ITEMS} items to prove")));
        }
        Some(Json::List(items)) => items.as_slice(),
        _ => &[],
    };
    let mut proved = None;
    for item in items {
        let item = item.at(&each.rest).ok_or_else(|| missing("a signed item is missing".into()))?;
        let key = judge(Some(item))?;
        proved.get_or_insert(key);
    }
    proved.ok_or_else(|| (OriginFault::MissingSignature, "there is no item to prove".into()))
}

impl Signed {
    /// The key that made one of the signatures.
    fn judge<'s, 'q>(
        &'s self,
        request: &'q Request<'_>,
        item: Option<&'q Json>,
        now: Timestamp,
    ) -> Result<&'s Key, Fault> {
        let groups = self.grammar.find(request, item)?;
        let mut fault = None;
        for group in groups.iter().filter(|group| !group.candidates.is_empty()) {
            let mut context = Context { request, item, fields: &group.fields, ts: None, key: None };
            let ts = match &self.stamp {
                Some(stamp) => match context.text(&stamp.from).map_err(missing)?.filter(|ts| !ts.is_empty()) {
                    Some(ts) => Some(ts),
                    None => {
                        let cause = format!("there is no one time stamp in {}", stamp.from);
                        fault.get_or_insert((OriginFault::BadTimestamp, cause));
                        continue;
                    }
                },
                None => None,
            };
            context.ts = ts.as_deref();
            let algorithm = match self.algorithm.of(&context) {
                Ok(algorithm) => algorithm,
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                    continue;
                }
            };
            match self.matching(context, algorithm, &group.candidates) {
                Ok(key) => {
                    context.key = Some(key);
                    self.hold(&context)?;
                    if let (Some(stamp), Some(ts)) = (&self.stamp, context.ts) {
                        stamp.window.judge(ts, now)?;
                    }
                    return Ok(key);
                }
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                }
            }
        }
        Err(fault.unwrap_or_else(|| (OriginFault::MissingSignature, "there is no signature".into())))
    }

    /// Tries every text with every key against every candidate.
    fn matching<'s>(
        &'s self,
        context: Context<'_, '_>,
        algorithm: Algorithm,
        candidates: &[Vec<u8>],
    ) -> Result<&'s Key, Fault> {
        let (mut absent, mut compared) = (None, false);
        for content in &self.contents {
            for key in &self.keys {
                let mut digest = if self.keyed { key.hmac(algorithm) } else { Running::plain(algorithm) };
                let tried = Context { key: Some(key), ..context };
                match content.feed(&tried, &mut |bytes| digest.take(bytes)) {
                    Ok(()) => {
                        compared = true;
                        if is_one_of(&digest.finish(), candidates) {
                            return Ok(key);
                        }
                    }
                    Err(what) => {
                        absent.get_or_insert(what);
                        break;
                    }
                }
            }
        }
        match absent {
            Some(what) if !compared => Err(missing(what)),
            _ => Err((
                OriginFault::WrongSignature,
                "no secret of this source makes this signature: the secret is another, or what was signed was changed"
                    .into(),
            )),
        }
    }

    /// Checks what has to equal.
    fn hold(&self, context: &Context<'_, '_>) -> Result<(), Fault> {
        for (a, b) in &self.equal {
            let (a, b) = (a.bytes(context).map_err(missing)?, b.bytes(context).map_err(missing)?);
            if !same(&a, &b) {
                return Err((OriginFault::ClaimMismatch, "a signed value is not the one it has to equal".into()));
            }
        }
        Ok(())
    }
}

/// Whether a digest is among the candidates; all of them are compared.
fn is_one_of(tag: &Tag, candidates: &[Vec<u8>]) -> bool {
    candidates.iter().fold(false, |hit, candidate| tag.is(candidate) | hit)
}

impl Choice {
    pub(super) fn of(&self, context: &Context<'_, '_>) -> Result<Algorithm, Fault> {
        let (from, map) = match self {
            Self::One(algorithm) => return Ok(*algorithm),
            Self::Listed(from, map) => (from, map),
        };
        let word = context.text(from).map_err(missing)?.ok_or_else(|| missing(format!("{from} is missing")))?;
        map.iter()
            .find(|(text, _)| text.as_bytes() == &*word)
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| (OriginFault::MalformedSignature, format!("{from} names an algorithm that is not allowed")))
    }
}

fn missing(what: String) -> Fault {
    (OriginFault::MissingPart, what)
}

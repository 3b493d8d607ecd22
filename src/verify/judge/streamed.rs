//! Check of a request whose body is not held: the signed text is digested while the body comes in, byte for byte.
//!
//! Only some schemes can be run so: digests with a shared secret over a text in which the body stands as it is, and
//! those that look at nothing of the body. The others are for [`super::signed`], over a body that is held. The order is
//! the same: the signature first, then the values that must equal, then the time, judged by when the head came.

use super::signed::{is_one_of, unmatched};
use crate::model::{OriginFault, Proof, ProofMark, Received, Refusal, Timestamp, Verify};
use crate::verify::judge::mark::{BLANK, MarkBuilder};
use crate::verify::keys::mac::{Algorithm, Key, RunningDigest};
use crate::verify::proof_error::{ProofError, missing, no_signature};
use crate::verify::request::RequestTexts;
use crate::verify::request::field::Field;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::algorithm::AlgorithmChoice;
use crate::verify::scheme::key_material::KeyMaterial;
use crate::verify::scheme::mechanism::Mechanism;
use crate::verify::scheme::signed::Signed;
use crate::verify::signature::places::SignaturePlace;
use crate::verify::template::render::Context;
use crate::verify::template::{ContentTemplate, Placeholder};

/// A check under way.
pub(crate) enum StreamedCheck {
    /// A request that the head alone decides.
    Judged(Result<Proof, Refusal>, Option<MarkBuilder>),
    /// Digests that are being fed.
    Fed(FedDigests),
}

/// Digests under way, and why others could not begin.
#[derive(Default)]
pub(crate) struct FedDigests {
    pending: Vec<PendingDigest>,
    absent: Option<String>,
    fault: Option<ProofError>,
}

/// One text under one key.
struct PendingDigest {
    group: usize,
    content: usize,
    key: usize,
    digest: RunningDigest,
    /// True if the body is part of the text; and the bytes behind the body.
    covers: bool,
    behind: Vec<u8>,
    /// The mark of the signed text; and true if the body is part of the mark.
    marking: MarkBuilder,
    marked: bool,
}

/// Result of a check, in the form that a request is proved by.
pub(crate) struct Precomputed(Result<Proof, Refusal>);

impl Verify for Precomputed {
    fn judge(&self, _: &Received, _: Timestamp) -> Result<Proof, Refusal> {
        self.0.clone()
    }
}

impl StreamedCheck {
    /// The refusal that no body can avert.
    pub(crate) fn hopeless(&self) -> Option<Refusal> {
        match self {
            Self::Judged(Err(refusal), _) => Some(refusal.clone()),
            Self::Fed(fed) if fed.pending.is_empty() => {
                Some(nothing(fed.absent.clone(), fed.fault.clone()))
            }
            Self::Judged(..) | Self::Fed(_) => None,
        }
    }

    /// Takes the next bytes of the body.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        match self {
            Self::Judged(_, Some(marking)) => marking.take(piece),
            Self::Judged(_, None) => {}
            Self::Fed(fed) => {
                for pending in &mut fed.pending {
                    if pending.covers {
                        pending.digest.take(piece);
                    }
                    if pending.marked {
                        pending.marking.take(piece);
                    }
                }
            }
        }
    }

    /// Ends the check, with the scheme and the head that it began with.
    pub(crate) fn end(self, scheme: &Scheme, head: &Received) -> Precomputed {
        Precomputed(self.judge(scheme, head))
    }

    fn judge(self, scheme: &Scheme, head: &Received) -> Result<Proof, Refusal> {
        let fed = match self {
            Self::Judged(judged, marking) => {
                // The mark of a head alone would be that of a request without a body.
                return judged.map(|proof| Proof {
                    marks: marking.map(MarkBuilder::end).into_iter().collect(),
                    ..proof
                });
            }
            Self::Fed(fed) => fed,
        };
        if fed.pending.is_empty() {
            return Err(nothing(fed.absent, fed.fault));
        }
        let request = RequestTexts::new(head, &scheme.document);
        let Ok(Mechanism::Signed(signed)) = scheme.way(&request) else {
            return Err(Refusal::Internal(
                "a check ended with another scheme than it began with".into(),
            ));
        };
        signed
            .end(&request, fed.pending, head.at)
            .map_err(|(fault, cause)| Refusal::Origin(fault, cause))
    }
}

impl Scheme {
    /// Begins to check a request by its head; its body is still empty. None: the check needs the body whole.
    pub(crate) fn begin(&self, head: &Received) -> Option<StreamedCheck> {
        if !self
            .variants
            .iter()
            .all(|(when, _)| when.iter().all(|(field, _)| is_in_head(field)))
        {
            return None;
        }
        let request = RequestTexts::new(head, &self.document);
        let refused = |(fault, cause): ProofError| {
            StreamedCheck::Judged(Err(Refusal::Origin(fault, cause)), None)
        };
        let way = match self.way(&request) {
            Ok(way) => way,
            Err(fault) => return Some(refused(fault)),
        };
        match way {
            Mechanism::Signed(signed) => match signed.begin(&request)? {
                Ok(fed) => Some(fed),
                Err(fault) => Some(refused(fault)),
            },
            Mechanism::Token(token, None) if token.places.list.iter().all(is_in_head_spot) => {
                Some(StreamedCheck::Judged(
                    self.judge(head, head.at),
                    Some(MarkBuilder::of_shown(head, way.shown())),
                ))
            }
            Mechanism::Basic(_) => Some(StreamedCheck::Judged(
                self.judge(head, head.at),
                Some(MarkBuilder::of_shown(head, way.shown())),
            )),
            Mechanism::Certificate(_) => {
                Some(StreamedCheck::Judged(self.judge(head, head.at), None))
            }
            Mechanism::Open => Some(StreamedCheck::Judged(self.judge(head, head.at), None)),
            Mechanism::Token(..) | Mechanism::Jwt(_) | Mechanism::Ask(_) => None,
        }
    }
}

impl Signed {
    /// Begins the check by the head. None: the check needs the body whole.
    fn begin(&self, request: &RequestTexts<'_>) -> Option<Result<StreamedCheck, ProofError>> {
        let bodies = self.body_positions()?;
        if self.keys.secrets().is_empty() {
            return Some(Err((
                OriginFault::NotAttempted,
                "this source has no secret yet".into(),
            )));
        }
        let groups = match self.grammar.find(request, None) {
            Ok(groups) => groups,
            Err(fault) => return Some(Err(fault)),
        };
        let mut fed = FedDigests::default();
        let with_candidates = groups
            .iter()
            .enumerate()
            .filter(|(_, found)| !found.candidates.is_empty());
        for (group, found) in with_candidates {
            let mut context = Context {
                fields: &found.fields,
                ..Context::new(request)
            };
            match self.time_and_algorithm(&context) {
                Ok((ts, algorithm)) => {
                    context.ts = ts.as_deref();
                    self.begin_group(group, algorithm, &bodies, context, &mut fed);
                }
                Err(wrong) => {
                    fed.fault.get_or_insert(wrong);
                }
            }
        }
        Some(Ok(StreamedCheck::Fed(fed)))
    }

    /// The position of the body in each text. None: the check needs the body whole.
    fn body_positions(&self) -> Option<Vec<Option<usize>>> {
        let chosen = match &self.algorithm {
            AlgorithmChoice::One(_) => true,
            AlgorithmChoice::Listed(field, _) => is_in_head(field),
        };
        let of_head = chosen
            && !matches!(self.keys, KeyMaterial::Public(_))
            && self.asked.is_empty()
            && self.each.is_none()
            && self.grammar.places.list.iter().all(is_in_head_spot)
            && self
                .stamp
                .as_ref()
                .is_none_or(|stamp| is_in_head(&stamp.from))
            && self.without.iter().all(|(field, _)| is_in_head(field))
            && !self
                .equal
                .iter()
                .any(|(a, b)| a.any(&is_of_body) || b.any(&is_of_body));
        let bodies: Option<Vec<_>> = self
            .contents
            .iter()
            .map(|content| content.body_at(&is_of_body))
            .collect();
        bodies.filter(|_| of_head)
    }

    /// Begins the digests of a group: every text under every key.
    fn begin_group(
        &self,
        group: usize,
        algorithm: Algorithm,
        bodies: &[Option<usize>],
        context: Context<'_, '_>,
        fed: &mut FedDigests,
    ) {
        for (place, (content, body)) in self.contents.iter().zip(bodies).enumerate() {
            for (number, key) in self.keys.secrets().iter().enumerate() {
                match self.begin_digest(content, *body, key, algorithm, &context) {
                    Ok((digest, behind, marking)) => {
                        let covers = body.is_some();
                        fed.pending.push(PendingDigest {
                            group,
                            content: place,
                            key: number,
                            digest,
                            covers,
                            behind,
                            marking,
                            marked: covers || !self.is_of_one,
                        });
                    }
                    Err(what) => {
                        fed.absent.get_or_insert(what);
                        break;
                    }
                }
            }
        }
    }

    /// Begins one digest: its state before the body, the bytes behind the body, and its mark.
    fn begin_digest(
        &self,
        content: &ContentTemplate,
        body: Option<usize>,
        key: &Key,
        algorithm: Algorithm,
        context: &Context<'_, '_>,
    ) -> Result<(RunningDigest, Vec<u8>, MarkBuilder), String> {
        let mut digest = self.keys.digest(key, algorithm);
        let tried = Context {
            key: Some(key),
            ..*context
        };
        content.feed_before(body, &tried, &mut |bytes| digest.take(bytes))?;
        let mut behind = Vec::new();
        content.feed_behind(body, &tried, &mut |bytes| behind.extend_from_slice(bytes))?;
        let marking = self.begin_mark(content, body, context)?;
        Ok((digest, behind, marking))
    }

    /// Begins the mark of a text as far as the body.
    fn begin_mark(
        &self,
        content: &ContentTemplate,
        body: Option<usize>,
        context: &Context<'_, '_>,
    ) -> Result<MarkBuilder, String> {
        if !self.is_of_one {
            return self.mark_beside(content, context);
        }
        let told = Context {
            key: Some(&BLANK),
            ..*context
        };
        let mut marking = MarkBuilder::begin();
        content.feed_before(body, &told, &mut |bytes| marking.take(bytes))?;
        Ok(marking)
    }

    /// Ends the mark of a text, with what stands behind the body of one that covers it.
    fn end_mark(
        &self,
        mut marking: MarkBuilder,
        content: Option<&ContentTemplate>,
        context: &Context<'_, '_>,
    ) -> Result<ProofMark, String> {
        if let (Some(content), true) = (content, self.is_of_one) {
            let told = Context {
                key: Some(&BLANK),
                ..*context
            };
            content.feed_behind(
                content.body_at(&is_of_body).flatten(),
                &told,
                &mut |bytes| marking.take(bytes),
            )?;
        }
        Ok(marking.end())
    }

    fn end(
        &self,
        request: &RequestTexts<'_>,
        pending: Vec<PendingDigest>,
        now: Timestamp,
    ) -> Result<Proof, ProofError> {
        let groups = self.grammar.find(request, None)?;
        let keys = self.keys.secrets();
        for mut pending in pending {
            let (Some(found), Some(key)) = (groups.get(pending.group), keys.get(pending.key))
            else {
                continue;
            };
            let content = self.contents.get(pending.content);
            pending.digest.take(&pending.behind);
            if !is_one_of(&pending.digest.finish(), &found.candidates) {
                continue;
            }
            let mut context = Context {
                fields: &found.fields,
                key: Some(key),
                ..Context::new(request)
            };
            let ts = self.time(&context)?;
            context.ts = ts.as_deref();
            self.hold(&context)?;
            self.check_time(&context, now)?;
            let mark = self
                .end_mark(
                    pending.marking,
                    content.filter(|_| pending.covers),
                    &context,
                )
                .map_err(missing)?;
            return Ok(Proof {
                strength: self.strength,
                secret: Some(key.name().to_owned()),
                marks: vec![mark],
            });
        }
        Err(unmatched(None, true))
    }
}

/// The refusal where no digest could begin.
fn nothing(absent: Option<String>, fault: Option<ProofError>) -> Refusal {
    let (fault, cause) = match (absent, fault) {
        (Some(what), _) => missing(what),
        (None, Some(fault)) => fault,
        (None, None) => no_signature(),
    };
    Refusal::Origin(fault, cause)
}

const fn is_in_head(field: &Field) -> bool {
    matches!(
        field,
        Field::Header(_) | Field::Query(_) | Field::Signature(_)
    )
}

const fn is_in_head_spot(spot: &SignaturePlace) -> bool {
    match spot {
        SignaturePlace::Field(field) => is_in_head(field),
        SignaturePlace::Numbered(_) => true,
    }
}

/// True if a value depends on the body without being the body itself.
const fn is_of_body(value: &Placeholder) -> bool {
    match value {
        Placeholder::Field(field) | Placeholder::FieldOrEmpty(field) => !is_in_head(field),
        Placeholder::FormSorted => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::verify::tests::support::{cases, fault, post, scheme, shipped};

    /// Judges a request by pieces of its body; none where that cannot be.
    fn streamed(
        scheme: &Scheme,
        received: &Received,
        piece: usize,
    ) -> Option<Result<Proof, Refusal>> {
        let head = Received {
            body: Bytes::new(),
            ..received.clone()
        };
        let mut streamed = scheme.begin(&head)?;
        for piece in received.body.chunks(piece) {
            streamed.take(piece);
        }
        Some(streamed.judge(scheme, &head))
    }

    #[test]
    fn t52_every_kept_request_is_judged_in_pieces_as_it_is_whole() {
        let (mut seen, mut providers) = (0, 0);
        for (name, _) in crate::config::shipped_providers() {
            let provider = shipped(name);
            let before = seen;
            for case in cases(name) {
                let scheme = case.scheme(&provider);
                let received = Received {
                    at: case.now(),
                    ..case.received.clone()
                };
                let whole = scheme.judge(&received, case.now());
                for piece in [1, 7, 4096] {
                    let Some(pieces) = streamed(&scheme, &received, piece) else {
                        continue;
                    };
                    assert_eq!(
                        pieces.is_ok(),
                        whole.is_ok(),
                        "{}: {pieces:?}, whole {whole:?}",
                        case.place()
                    );
                    if let (Ok(pieces), Ok(whole)) = (&pieces, &whole) {
                        assert_eq!(pieces, whole, "{}", case.place());
                    }
                    seen += 1;
                }
            }
            providers += usize::from(seen > before);
        }
        assert!(
            providers >= 200 && seen >= 6000,
            "{providers} providers, {seen} cases in pieces"
        );
    }

    #[test]
    fn what_stands_around_the_body_and_what_must_equal_count() {
        let scheme = scheme(
            "scheme = 'hmac'\nsignature = 'header:S'\nsigned_content = '{header:A}.{body}.{header:B}'\n\
             equal = [['{header:A}', '{query:a}']]",
        );
        let mut request = post(&[("a", "1"), ("b", "2")], "hello");
        request.target = "/hooks/s?a=1".into();
        for (name, value) in scheme.sign(0, &request, request.at).unwrap() {
            request.headers.insert(name, value);
        }
        let judge = |request: &Received| fault(streamed(&scheme, request, 2).unwrap());
        assert_eq!(judge(&request), None);
        for (name, value, wanted) in [
            ("b", "3", OriginFault::WrongSignature),
            ("a", "2", OriginFault::WrongSignature),
            ("s", "", OriginFault::MissingSignature),
        ] {
            let mut other = request.clone();
            other.headers.insert(name, value.parse().unwrap());
            assert_eq!(judge(&other), Some(wanted), "{name}");
        }
        let mut other = request.clone();
        other.target = "/hooks/s?a=2".into();
        assert_eq!(judge(&other), Some(OriginFault::ClaimMismatch));
        let mut flipped = request.clone();
        flipped.body = "hellO".into();
        assert_eq!(judge(&flipped), Some(OriginFault::WrongSignature));
    }

    #[test]
    fn what_needs_the_body_whole_says_so() {
        for verify in [
            "signature = 'json:sig'",
            "signature = 'header:S'\nsigned_content = '{json:id}.{body}'",
            "signature = 'header:S'\nsigned_content = '{body|sha256|hex}'",
            "signature = 'header:S'\nsigned_content = '{body}{body}'",
            "signature = 'header:S'\nsigned_content = '{form.sorted}'",
        ] {
            let scheme = scheme(&format!("scheme = 'hmac'\n{verify}"));
            assert!(
                streamed(&scheme, &post(&[("s", "00")], "x"), 1).is_none(),
                "{verify}"
            );
        }
    }
}

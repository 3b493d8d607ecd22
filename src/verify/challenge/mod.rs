//! Challenges (handshakes): a provider asks before it sends events. They are answered at the edge and never passed on.

mod compile;
mod reply;
pub(crate) mod signing_oracle;

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;

use self::reply::{PLAIN, Reply};
use self::signing_oracle::SigningOracle;
use super::keys::mac::{Key, same};
use super::request::RequestView;
use super::request::condition::FieldCondition;
use super::request::field::Field;
use super::scheme::Scheme;
use super::template::ContentTemplate;
use super::template::render::Context;
use crate::model::{Proof, Received, Refusal, Strength, Timestamp, Verify as _};

/// An answer given at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeResponse {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// One handshake, compiled.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub(crate) method: Option<Method>,
    when: Vec<(Field, FieldCondition)>,
    signed: bool,
    require: Vec<(Field, ContentTemplate)>,
    /// Where the secret stands that it brings.
    store: Option<Field>,
    /// The status for one that is not as required.
    otherwise: Option<u16>,
    /// What it has signed for whoever asks.
    asked: Option<SigningOracle>,
    reply: Reply,
}

/// What a challenge was answered with, and what it brought.
#[derive(Debug)]
pub(crate) struct ChallengeOutcome {
    pub(crate) answer: ChallengeResponse,
    /// The secret that it brings, which is not kept yet.
    pub(crate) secret: Option<Vec<u8>>,
    /// How much is known of who asked.
    pub(crate) proof: Proof,
}

impl Challenge {
    /// Whether it brings the secret.
    pub(crate) const fn brings_secret(&self) -> bool {
        self.store.is_some()
    }

    /// What it has signed for a stranger. One that has to be signed itself signs for nobody but the provider.
    pub(crate) const fn signs_for_strangers(&self) -> Option<&SigningOracle> {
        match &self.asked {
            Some(asked) if !self.signed => Some(asked),
            _ => None,
        }
    }

    /// Answers a request that is this challenge; none where it is not.
    pub(crate) fn answer(
        &self,
        received: &Received,
        scheme: &Scheme,
        now: Timestamp,
    ) -> Option<Result<ChallengeOutcome, Refusal>> {
        if self
            .method
            .as_ref()
            .is_some_and(|method| *method != received.method)
        {
            return None;
        }
        let request = RequestView::new(received, &scheme.document);
        self.when
            .iter()
            .all(|(field, want)| want.met(field, &request))
            .then(|| self.outcome(&request, scheme, now))
    }

    fn outcome(
        &self,
        request: &RequestView<'_>,
        scheme: &Scheme,
        now: Timestamp,
    ) -> Result<ChallengeOutcome, Refusal> {
        let mut key = scheme.keys().first();
        let mut proof = Proof {
            strength: Strength::None,
            secret: None,
            marks: Vec::new(),
        };
        if self.signed {
            proof = scheme.judge(request.received, now)?;
            key = scheme
                .keys()
                .iter()
                .find(|key| Some(key.name()) == proof.secret.as_deref())
                .or(key);
        } else if !self.require.is_empty() {
            proof.strength = Strength::Token;
        }
        let answer = self.reply(request, key)?;
        let secret = match &self.store {
            Some(field) => request
                .text(field, None)
                .map_err(Refusal::Challenge)?
                .map(Cow::into_owned),
            None => None,
        };
        if self.store.is_some() && !secret.as_deref().is_some_and(is_secret) {
            let cause = "the value that it brings cannot be a secret";
            return Err(self.otherwise(Refusal::Challenge(cause.into())));
        }
        Ok(ChallengeOutcome {
            answer,
            secret,
            proof,
        })
    }

    fn reply(
        &self,
        request: &RequestView<'_>,
        key: Option<&Key>,
    ) -> Result<ChallengeResponse, Refusal> {
        let context = Context {
            key,
            ..Context::new(request)
        };
        let refuse = |cause| self.otherwise(Refusal::Challenge(cause));
        for (field, template) in &self.require {
            let given = context.text(field).map_err(refuse)?.unwrap_or_default();
            let expected = template.bytes(&context).map_err(refuse)?;
            if !same(&expected, &given) {
                return Err(refuse(format!(
                    "{field} is not what the configuration says"
                )));
            }
        }
        for field in self
            .reply
            .templates()
            .into_iter()
            .flat_map(ContentTemplate::keyed_fields)
        {
            let text = context.text(field).map_err(refuse)?.unwrap_or_default();
            if !self.asked.as_ref().is_some_and(|asked| asked.allows(&text)) {
                return Err(refuse(format!(
                    "{field} is not what this provider has signed; nothing else is"
                )));
            }
        }
        let answer = self.reply.render(&context).map_err(refuse)?;
        if !self.signed
            && answer.content_type == PLAIN
            && answer.body.iter().any(|byte| matches!(byte, b'<' | b'>'))
        {
            return Err(refuse("the answer to the challenge would be markup".into()));
        }
        Ok(answer)
    }

    fn otherwise(&self, refusal: Refusal) -> Refusal {
        match self.otherwise {
            Some(status) => refusal.answered(status),
            None => refusal,
        }
    }
}

/// Whether what a handshake brought can be a secret: visible, and long enough not to be guessed.
fn is_secret(brought: &[u8]) -> bool {
    (16..=512).contains(&brought.len()) && brought.iter().all(u8::is_ascii_graphic)
}

/// The `Allow` header of a source with these challenges.
pub(crate) fn allowed_methods(challenges: &[Challenge]) -> &'static str {
    let has = |method: Method| {
        challenges
            .iter()
            .any(|challenge| challenge.method.as_ref() == Some(&method))
    };
    match (has(Method::GET), has(Method::HEAD), has(Method::OPTIONS)) {
        (false, false, false) => "POST",
        (true, false, false) => "GET, POST",
        (false, true, false) => "HEAD, POST",
        (true, true, false) => "GET, HEAD, POST",
        (false, false, true) => "OPTIONS, POST",
        (true, false, true) => "GET, OPTIONS, POST",
        (false, true, true) => "HEAD, OPTIONS, POST",
        (true, true, true) => "GET, HEAD, OPTIONS, POST",
    }
}

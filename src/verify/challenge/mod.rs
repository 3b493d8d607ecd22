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
use super::request::RequestTexts;
use super::request::condition::FieldCondition;
use super::request::field::Field;
use super::scheme::Scheme;
use super::template::ContentTemplate;
use super::template::render::Context;
use crate::model::{Proof, Received, Refusal, Strength, Timestamp, Verify as _};

/// Answer to a challenge, given at the edge.
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
    /// The place of the secret that it brings.
    store: Option<Field>,
    /// The status for a challenge that does not meet its requirements.
    otherwise: Option<u16>,
    /// The texts that it has signed for any caller.
    asked: Option<SigningOracle>,
    reply: Reply,
}

/// Outcome of a challenge: its answer, and the secret that it brought.
#[derive(Debug)]
pub(crate) struct ChallengeOutcome {
    pub(crate) answer: ChallengeResponse,
    /// The secret that it brings, not kept yet.
    pub(crate) secret: Option<Vec<u8>>,
    /// The proof of the caller.
    pub(crate) proof: Proof,
}

impl Challenge {
    /// True if it brings the secret.
    pub(crate) const fn brings_secret(&self) -> bool {
        self.store.is_some()
    }

    /// The texts that it has signed for any caller. A challenge that must itself be signed signs for its provider only.
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
        let request = RequestTexts::new(received, &scheme.document);
        self.when
            .iter()
            .all(|(field, want)| want.met(field, &request))
            .then(|| self.outcome(&request, scheme, now))
    }

    fn outcome(
        &self,
        request: &RequestTexts<'_>,
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
        request: &RequestTexts<'_>,
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

/// True if a brought text can be a secret: visible, and long enough not to be guessed.
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

//! Marks of proofs: a proof that is shown a second time is known by its mark.
//!
//! A mark is a digest of the text that was signed and not of the signature: signatures can be written in other ways,
//! some can be changed and still be good, and of several one is enough. Where a caller shows a secret, or signs nothing
//! that belongs to one request alone, the body is part of the mark.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::model::{ProofMark, Received, Strength};
use crate::verify::keys::jwt::Jwt;
use crate::verify::keys::mac::{Algorithm, Key};
use crate::verify::redact;
use crate::verify::request::RequestTexts;
use crate::verify::scheme::signed::Signed;
use crate::verify::signature::places::SignaturePlace;
use crate::verify::template::ContentTemplate;
use crate::verify::template::render::Context;

/// Substitute for the secret in a signed text: the mark does not depend on which of several secrets made the signature,
/// and no digest of a secret is kept.
pub(crate) static BLANK: LazyLock<Key> = LazyLock::new(|| {
    let all: Vec<Algorithm> = Algorithm::WORDS
        .into_iter()
        .map(|(_, algorithm)| algorithm)
        .collect();
    Key::new("", Vec::new(), &all)
});

/// A mark being made.
pub(crate) struct MarkBuilder(Sha256);

impl MarkBuilder {
    /// Begins with the text that was signed.
    pub(crate) fn begin() -> Self {
        Self(Sha256::new_with_prefix(b"signed\0"))
    }

    /// Begins with a text that does not belong to one request alone; the body follows.
    fn beside(text: &[u8]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"beside\0");
        digest.update(Sha256::digest(text));
        Self(digest)
    }

    /// Begins with a request whose caller shows a secret; the body follows.
    pub(crate) fn of_shown(received: &Received, spots: &[SignaturePlace]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"shown\0");
        digest.update(received.method.as_str().as_bytes());
        digest.update(b" ");
        let shown = |name: &str, _: &str| redact::stands_in_query(spots, name).then(String::new);
        digest.update(redact::target(&received.target, &shown).as_bytes());
        digest.update(b"\n");
        Self(digest)
    }

    /// Takes the next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Ends the mark.
    pub(crate) fn end(self) -> ProofMark {
        ProofMark(self.0.finalize().into())
    }
}

/// The mark of a request whose caller shows a secret. A caller who knows the secret can send any request, so this mark
/// only tells one request from another.
pub(crate) fn of_shown(request: &RequestTexts<'_>, spots: &[SignaturePlace]) -> ProofMark {
    let mut marking = MarkBuilder::of_shown(request.received, spots);
    marking.take(&request.received.body);
    marking.end()
}

impl Signed {
    /// The mark of a text that was signed.
    pub(crate) fn mark(
        &self,
        content: &ContentTemplate,
        context: &Context<'_, '_>,
    ) -> Result<ProofMark, String> {
        let told = Context {
            key: Some(&BLANK),
            ..*context
        };
        if self.is_of_one {
            let mut marking = MarkBuilder::begin();
            content.feed(&told, &mut |bytes| marking.take(bytes))?;
            return Ok(marking.end());
        }
        let mut marking = self.mark_beside(content, &told)?;
        marking.take(&context.request.received.body);
        Ok(marking.end())
    }

    /// Begins the mark of a text that does not belong to one request alone; the body follows.
    pub(crate) fn mark_beside(
        &self,
        content: &ContentTemplate,
        context: &Context<'_, '_>,
    ) -> Result<MarkBuilder, String> {
        let told = Context {
            key: Some(&BLANK),
            ..*context
        };
        Ok(MarkBuilder::beside(&content.bytes(&told)?))
    }
}

impl Jwt {
    /// The mark of a token. A token that does not cover the body may come with many requests.
    pub(crate) fn mark(&self, request: &RequestTexts<'_>, signed: &[u8; 32]) -> ProofMark {
        let mut marking = match self.strength {
            Strength::Signed => MarkBuilder::begin(),
            _ => MarkBuilder::beside(signed),
        };
        match self.strength {
            Strength::Signed => marking.take(signed),
            _ => marking.take(&request.received.body),
        }
        marking.end()
    }
}

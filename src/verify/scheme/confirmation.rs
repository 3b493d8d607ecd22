//! Confirmation of a subscription: an address that the gateway asks for before the provider sends events.

use crate::config::Section;
use crate::model::{Received, Refusal};
use crate::verify::keys::pinned_url::PinnedUrl;
use crate::verify::request::RequestTexts;
use crate::verify::request::condition::{FieldCondition, conditions};
use crate::verify::request::field::{DocumentPlace, Field};
use crate::verify::template::render::Context;

/// An address that has to be asked for before a provider sends events, named by a request that is proved.
#[derive(Debug)]
pub(crate) struct Confirmation {
    pinned: PinnedUrl,
    when: Vec<(Field, FieldCondition)>,
}

impl Confirmation {
    /// Reads `confirm`: `from`, `host`, `path` and `when`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let (pinned, when) = (PinnedUrl::read(section), conditions(section));
        Some(Self {
            pinned: pinned?,
            when: when?,
        })
    }

    /// The address that this request asks to be fetched. None: it is no such request.
    pub(crate) fn address(
        &self,
        received: &Received,
        document: &DocumentPlace,
    ) -> Result<Option<String>, Refusal> {
        let request = RequestTexts::new(received, document);
        if !self
            .when
            .iter()
            .all(|(field, want)| want.met(field, &request))
        {
            return Ok(None);
        }
        self.pinned
            .address(&Context::new(&request))
            .map(Some)
            .map_err(|(_, cause)| Refusal::Challenge(cause))
    }
}

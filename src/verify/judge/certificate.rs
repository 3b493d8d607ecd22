//! Certificate that a request names and that has to be fetched before the request is judged.

use std::net::IpAddr;

use crate::model::{Received, Refusal, Timestamp};
use crate::verify::keys::certificate::{Certificates, Need};
use crate::verify::proof_error::ProofError;
use crate::verify::request::RequestTexts;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::mechanism::Mechanism;
use crate::verify::scheme::signed::Signed;
use crate::verify::template::render::Context;

/// A certificate to fetch: its cache, its address, and the reason.
pub(crate) struct WantedCertificate<'s> {
    certificates: &'s Certificates,
    /// The address, at the host that the provider's file pins.
    pub(crate) address: String,
    /// True if nothing can be judged without it; false if the one at hand ends soon.
    pub(crate) is_missing: bool,
}

impl WantedCertificate<'_> {
    /// True if the network of a peer has named so many addresses without a certificate that it has to wait.
    pub(crate) fn is_crowded(&self, peer: IpAddr, now: Timestamp) -> bool {
        self.certificates.is_crowded(peer, now)
    }

    /// True if it still has to be fetched. Notes that it is being fetched.
    pub(crate) fn begin(&self, now: Timestamp) -> bool {
        self.certificates.begin(&self.address, now)
    }

    /// Keeps the certificate that stands at the address, or what the fetch ended with.
    pub(crate) fn end(
        &self,
        fetched: Result<&[u8], String>,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<(), String> {
        self.certificates.end(&self.address, fetched, peer, now)
    }
}

impl Scheme {
    /// The certificate that has to be fetched before a request is judged; none where it is at hand, or not needed.
    /// Everything that can be judged without it is judged first, so that a request which is refused anyway causes no
    /// fetch.
    pub(crate) fn wanted_certificate(
        &self,
        received: &Received,
        now: Timestamp,
    ) -> Result<Option<WantedCertificate<'_>>, Refusal> {
        let fetches = |mechanism: &Mechanism| match mechanism {
            Mechanism::Signed(signed) => signed.keys.certificates().is_some(),
            _ => false,
        };
        if !self.ways().any(fetches) {
            return Ok(None);
        }
        let request = RequestTexts::new(received, &self.document);
        let wanted = match self.way(&request) {
            Ok(Mechanism::Signed(signed)) => signed.wanted_certificate(&request, now),
            Ok(_) => Ok(None),
            Err(fault) => Err(fault),
        };
        wanted.map_err(|(fault, cause)| Refusal::Origin(fault, cause))
    }
}

impl Signed {
    fn wanted_certificate(
        &self,
        request: &RequestTexts<'_>,
        now: Timestamp,
    ) -> Result<Option<WantedCertificate<'_>>, ProofError> {
        // A certificate of the operator is the only one that counts.
        let Some(certificates) = self.keys.certificates() else {
            return Ok(None);
        };
        let groups = self.grammar.find(request, None)?;
        let fields = groups
            .iter()
            .find(|group| !group.candidates.is_empty())
            .map_or(&[][..], |group| &group.fields);
        let mut context = Context {
            fields,
            ..Context::new(request)
        };
        let (ts, _) = self.time_and_algorithm(&context)?;
        context.ts = ts.as_deref();
        self.hold(&context)?;
        self.check_time(&context, now)?;
        let address = certificates.address(&context)?;
        Ok(certificates
            .need(&address, now)
            .map(|need| WantedCertificate {
                certificates,
                address,
                is_missing: need == Need::Missing,
            }))
    }
}

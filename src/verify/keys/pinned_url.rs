//! Address on the web that a request names, pinned by the provider's file to a host and a path.

use http::Uri;
use regex::Regex;

use crate::config::{Located, Section};
use crate::model::OriginFault;
use crate::verify::proof_error::{ProofError, missing};
use crate::verify::request::field::Field;
use crate::verify::template::render::Context;

/// The longest address.
const LONGEST: usize = 512;

/// A pinned place on the web, named by a request.
#[derive(Debug)]
pub(crate) struct PinnedUrl {
    pub(super) from: Field,
    host: Regex,
    path: Regex,
}

impl PinnedUrl {
    /// Reads `from`, `host` and `path`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let problems = section.problems();
        let from = section
            .required_text(
                "from",
                "name the field that holds the address, for example \"json:SigningCertURL\"",
            )
            .and_then(|text| Field::parse(&text, problems));
        let host = section
            .required_text(
                "host",
                "write a regular expression that the whole name of the host has to match",
            )
            .and_then(|text| whole("host", &text, section));
        let path = section
            .required_text(
                "path",
                "write a regular expression that the whole path has to match, for example '/certs/[0-9a-f]{32}\\.pem'",
            )
            .and_then(|text| whole("path", &text, section));
        Some(Self {
            from: from?,
            host: host?,
            path: path?,
        })
    }

    /// The address that a request names, if it may be asked: https, at the pinned host, at the usual port.
    pub(crate) fn address(&self, context: &Context<'_, '_>) -> Result<String, ProofError> {
        let wrong = |what: &str| (OriginFault::UnknownKey, format!("{} {what}", self.from));
        let text = context.text(&self.from).map_err(missing)?;
        let text = text.ok_or_else(|| missing(format!("{} is missing", self.from)))?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong("is not an address"))?;
        if text.len() > LONGEST
            || text.contains(['#', '\\', '@', '%'])
            || text.bytes().any(|b| b <= b' ')
        {
            return Err(wrong("is not a plain address"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is not an address"))?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("is not an https address"));
        };
        let host = authority.host().to_ascii_lowercase();
        if !matches!(authority.port_u16(), None | Some(443)) || !self.host.is_match(&host) {
            return Err(wrong("is at a host that this provider does not use"));
        }
        if !self.path.is_match(uri.path()) || uri.path().split('/').any(|step| step == "..") {
            return Err(wrong("is at a path that this provider does not use"));
        }
        let query = uri
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        Ok(format!("https://{host}{}{query}", uri.path()))
    }
}

/// Compiles an expression that must match the whole of a text.
fn whole(key: &str, text: &Located<String>, section: &Section<'_>) -> Option<Regex> {
    match Regex::new(&format!("^(?:{})$", text.value)) {
        Ok(regex) => Some(regex),
        Err(_) => {
            let what = format!("{} is not a regular expression", section.path(key));
            section.problems().error_hint(
                &text.place,
                what,
                "for example 'sns\\.[a-z0-9-]+\\.example\\.com'",
            );
            None
        }
    }
}

//! Fetching files that a channel keeps and that a payload only names, with the source's token.
//!
//! Promises: the token is sent to the one host that the configuration names and nowhere else; no redirect is followed; no
//! message from here contains the token or an address. A download is bounded in bytes and time, and streams into the store.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::named_file::NamedFile;
use super::{Files, StoreError};
use crate::config::{
    FetchMethod, FetchRule, FileRules, Provider, Secret, SourceConfig, SourceFetch, TargetPart,
};
use crate::model::attachment::{cleaned_name, cleaned_type};
use crate::model::{Attachment, Timestamp};
use crate::net::Client;
use crate::net::download::{Download, DownloadBounds, DownloadError};

/// The largest answer that names the path of a file, in bytes.
const ANSWER: u64 = 64 * 1024;

/// The longest time in which a channel sends nothing.
const STALL: Duration = Duration::from_secs(15);

/// Characters that are escaped in a part of a path, in a token, and in a path that was found.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const TOKEN: &AsciiSet = &PART.remove(b':');
const PATH: &AsciiSet = &PART.remove(b'/');

/// Finds and fetches the files of a source.
#[derive(Clone, Debug)]
pub struct Fetcher {
    pub(super) rule: FetchRule,
    /// The address before every target, without a slash at the end.
    api: String,
    at: Uri,
    token: Secret,
}

/// The reason why a file was not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFetchError {
    /// It never will be. The text continues "File 1 …" in the system prompt, so it has only the gateway's own words in it
    /// and nothing that a sender or a channel wrote.
    Never(String),
    /// It may be there at another time; a sentence.
    NotNow(String),
}

/// The bounds on a file, and the time for which it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// The kinds and sizes that are accepted.
    pub intake: &'a FileRules,
    /// The longest time for a download.
    pub time: Duration,
    /// The time until which it is kept while nothing refers to it.
    pub until: Timestamp,
}

impl Fetcher {
    /// The fetcher of a source; `None` where it fetches nothing, or where its `fetch` has a problem.
    pub fn of(source: &SourceConfig, provider: &Provider) -> Option<Self> {
        let fetch = source.files.as_ref()?.fetch.as_ref()?;
        Self::new(provider.files.as_ref()?, fetch)
    }

    fn new(rule: &FetchRule, fetch: &SourceFetch) -> Option<Self> {
        let at = fetch.api.clone().unwrap_or_else(|| rule.api.clone());
        let api = at.to_string().trim_end_matches('/').to_owned();
        Some(Self {
            rule: rule.clone(),
            api,
            at,
            token: fetch.token.clone()?,
        })
    }

    /// Fetches a file into the store. The caller has to refer to it or to remove it.
    pub async fn fetch(
        &self,
        client: &Client,
        files: &Files,
        file: &NamedFile,
        allowed: Allowed<'_>,
    ) -> Result<Attachment, FileFetchError> {
        let intake = allowed.intake;
        if file.size.is_some_and(|size| size > intake.max_file) {
            return Err(too_large(intake.max_file));
        }
        let bounds = DownloadBounds {
            time: allowed.time,
            stall: STALL,
            bytes: intake.max_file,
        };
        let (target, found) = self.target(client, file).await?;
        // A "not found" is final only for an address from the payload. One that the channel has just given is tried again.
        let mut download = self
            .open(client, &target, bounds)
            .await
            .map_err(|error| fetch_error(error, found.is_none()))?;
        let name = file
            .name
            .as_deref()
            .or(found.as_deref())
            .or_else(|| target.split('?').next());
        let name = cleaned_name(name.unwrap_or_default());
        let said = download
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = cleaned_type(file.kind.as_deref().or(said));
        if !intake.accepts(&name, &kind) {
            return Err(FileFetchError::Never(
                "is of a kind that is not taken".into(),
            ));
        }
        let mut incoming = files.begin(&name, Some(&kind)).await.map_err(not_stored)?;
        while let Some(piece) = download
            .next()
            .await
            .map_err(|error| fetch_error(error, false))?
        {
            incoming.take(piece).await.map_err(not_stored)?;
        }
        let placed = incoming
            .end(allowed.until)
            .await
            .map_err(not_stored)?
            .place()
            .await
            .map_err(not_stored)?;
        Ok(Attachment {
            origin: Some(file.id.clone()),
            ..placed
        })
    }

    /// The target of a file, and the path that the channel named for it, where it had to be asked.
    async fn target(
        &self,
        client: &Client,
        file: &NamedFile,
    ) -> Result<(String, Option<String>), FileFetchError> {
        match &self.rule.way {
            FetchMethod::Named(_) => Ok((
                self.owned(file.address.as_deref().unwrap_or_default())?,
                None,
            )),
            FetchMethod::Target(target) => Ok((self.filled(target, &file.id, ""), None)),
            FetchMethod::Asked { ask, found, get } => {
                let bounds = DownloadBounds {
                    time: STALL,
                    stall: STALL,
                    bytes: ANSWER,
                };
                let asked = self
                    .open(client, &self.filled(ask, &file.id, ""), bounds)
                    .await;
                let asked = asked.map_err(|error| match error {
                    DownloadError::Status(status) if status.as_u16() == 400 => {
                        FileFetchError::Never("is not given out by the channel".into())
                    }
                    error => fetch_error(error, false),
                })?;
                let answer = asked
                    .whole()
                    .await
                    .map_err(|error| fetch_error(error, false))?;
                let place = serde_json::from_slice::<Value>(&answer)
                    .ok()
                    .and_then(|answer| {
                        found
                            .iter()
                            .try_fold(&answer, |at, key| at.get(key))?
                            .as_str()
                            .map(str::to_owned)
                    });
                let not_named =
                    || FileFetchError::NotNow("the channel does not say where it is".into());
                let place = place.filter(|place| is_path(place)).ok_or_else(not_named)?;
                Ok((self.filled(get, &file.id, &place), Some(place)))
            }
        }
    }

    /// The target of an address in a payload, if it is on the configured host.
    fn owned(&self, address: &str) -> Result<String, FileFetchError> {
        let port = |uri: &Uri| {
            uri.port_u16()
                .unwrap_or(if uri.scheme_str() == Some("https") {
                    443
                } else {
                    80
                })
        };
        let ours = |uri: &Uri| {
            uri.scheme() == self.at.scheme()
                && uri.host().is_some_and(|host| {
                    self.at
                        .host()
                        .is_some_and(|own| own.eq_ignore_ascii_case(host))
                })
                && port(uri) == port(&self.at)
                && uri
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
        };
        let uri = address.parse::<Uri>().ok().filter(ours);
        let uri = uri.ok_or_else(|| {
            FileFetchError::Never("has an address that is not one of the channel's own".into())
        })?;
        Ok(uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string))
    }

    fn filled(&self, target: &[TargetPart], id: &str, found: &str) -> String {
        let token = self.token.expose_text().unwrap_or_default();
        let part = |part: &TargetPart| match part {
            TargetPart::Text(text) => text.clone(),
            TargetPart::Token => utf8_percent_encode(token, TOKEN).to_string(),
            TargetPart::Id => utf8_percent_encode(id, PART).to_string(),
            TargetPart::Found => utf8_percent_encode(found, PATH).to_string(),
        };
        target.iter().map(part).collect()
    }

    async fn open(
        &self,
        client: &Client,
        target: &str,
        bounds: DownloadBounds,
    ) -> Result<Download, DownloadError> {
        let address = match &self.rule.way {
            // The target was cut from an address with its whole path.
            FetchMethod::Named(_) => format!(
                "{}://{}{target}",
                self.at.scheme_str().unwrap_or("https"),
                authority(&self.at)
            ),
            _ => format!("{}{target}", self.api),
        };
        let unfit = || DownloadError::Broken("no request can be made of it".into());
        let mut request = Request::get(address)
            .body(Bytes::new())
            .map_err(|_| unfit())?;
        let agent = HeaderValue::from_static(concat!("sluicegate/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        for (name, value) in &self.rule.headers {
            let token = self.token.expose_text().unwrap_or_default();
            let text = value.iter().map(|part| match part {
                TargetPart::Text(text) => Cow::Borrowed(text.as_str()),
                _ => Cow::Borrowed(token),
            });
            let mut value = HeaderValue::try_from(text.collect::<String>()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        client.download_pinned(request, bounds).await
    }
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// True if a path that was found leads only downwards.
fn is_path(place: &str) -> bool {
    !place.is_empty()
        && place.len() <= 1024
        && !place.split('/').any(|part| matches!(part, "" | "." | ".."))
}

fn too_large(most: u64) -> FileFetchError {
    FileFetchError::Never(match most {
        most if most >= 1 << 20 && most.is_multiple_of(1 << 20) => {
            format!("is larger than {} MiB", most >> 20)
        }
        most if most >= 1 << 10 && most.is_multiple_of(1 << 10) => {
            format!("is larger than {} KiB", most >> 10)
        }
        most => format!("is larger than {most} bytes"),
    })
}

/// The error of a failed download. With `may_be_gone` a "not found" is final.
fn fetch_error(error: DownloadError, may_be_gone: bool) -> FileFetchError {
    match error {
        DownloadError::TooLarge(most) => too_large(most),
        DownloadError::Status(status)
            if may_be_gone && matches!(status.as_u16(), 400 | 404 | 410) =>
        {
            FileFetchError::Never("is no longer at the channel".into())
        }
        error => FileFetchError::NotNow(format!("the channel did not give it: {error}")),
    }
}

fn not_stored(error: StoreError) -> FileFetchError {
    FileFetchError::NotNow(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;
    use crate::config::Table;

    fn channel(rule: &str, api: Option<&str>) -> Fetcher {
        let text =
            format!("title = \"t\"\n[verify]\nscheme = \"none\"\n[attachments.fetch]\n{rule}");
        let problems = Problems::default();
        let provider = Provider::read("p", &Table::parse("p.toml", &text, &problems), &problems);
        assert!(!problems.any_error(), "{problems:?}");
        let place = provider.place.clone();
        let token = Some(Secret::new("token", "123:abc/d"));
        let fetch = SourceFetch {
            place,
            token,
            api: api.map(|api| api.parse().unwrap()),
        };
        Fetcher::new(&provider.files.unwrap(), &fetch).unwrap()
    }

    const BOT: &str = r#"
        api = "https://bot.example"
        each = ["*.photo.-1", "*.document"]
        id = "file_id"
        name = "file_name"
        size = "file_size"
        ask = "/bot{token}/getFile?file_id={id}"
        found = "result.file_path"
        get = "/file/bot{token}/{found}"
    "#;

    #[test]
    fn a3_a5_a_mark_or_half_a_character_hides_no_file() {
        for body in [
            &b"\xef\xbb\xbf{\"m\":{\"document\":{\"file_id\":\"x\"}}}"[..],
            br#"{"t":"\ud83d","m":{"document":{"file_id":"x"}}}"#,
        ] {
            let named = channel(BOT, None).named(body, 9);
            assert_eq!(
                named
                    .iter()
                    .map(|file| file.id.as_str())
                    .collect::<Vec<_>>(),
                ["x"]
            );
        }
    }

    #[test]
    fn files_are_found_where_the_rule_says_each_once() {
        let body = br#"{"update_id":1,"message":{"photo":[{"file_id":"small"},{"file_id":"large","file_size":9}],
            "document":{"file_id":"large"},"other":{"file_id":"no"}},"edited":{"document":{"file_id":"d","file_name":"a.pdf"}}}"#;
        let found = channel(BOT, None).named(body, 9);
        let names: Vec<_> = found
            .iter()
            .map(|file| (file.id.as_str(), file.name.as_deref(), file.size))
            .collect();
        assert_eq!(
            names,
            [("large", None, Some(9)), ("d", Some("a.pdf"), None)]
        );
        assert_eq!(channel(BOT, None).named(body, 1).len(), 1);
        for odd in [
            &b"no json"[..],
            b"[]",
            br#"{"message":{"photo":[]}}"#,
            br#"{"m":{"document":{"file_id":["x"]}}}"#,
        ] {
            assert_eq!(channel(BOT, None).named(odd, 9), []);
        }
    }

    #[test]
    fn t74_t76_targets_hold_what_is_filled_in_as_one_part_and_lead_to_the_host_alone() {
        let bot = channel(BOT, None);
        let FetchMethod::Asked { ask, get, .. } = &bot.rule.way else {
            panic!()
        };
        assert_eq!(
            bot.filled(ask, "a/../b&x=1", ""),
            "/bot123:abc%2Fd/getFile?file_id=a%2F..%2Fb%26x%3D1"
        );
        assert_eq!(
            bot.filled(get, "", "photos/a b.jpg"),
            "/file/bot123:abc%2Fd/photos/a%20b.jpg"
        );
        for (place, good) in [
            ("a/b.jpg", true),
            ("../a", false),
            ("a//b", false),
            ("/a", false),
            ("a/./b", false),
        ] {
            assert_eq!(is_path(place), good, "{place}");
        }
        let rule = "api = \"https://files.example\"\neach = [\"files.*\"]\nurl = \"url\"\nheaders = { Authorization = \"Bearer {token}\" }";
        let named = channel(rule, None);
        assert_eq!(
            named.owned("https://FILES.example:443/a?b=c").unwrap(),
            "/a?b=c"
        );
        for wrong in [
            "http://files.example/a",
            "https://files.example.evil/a",
            "https://files.example:444/a",
            "https://user@files.example/a",
            "//files.example/a",
            "/a",
            "",
        ] {
            assert!(named.owned(wrong).is_err(), "{wrong}");
        }
    }
}

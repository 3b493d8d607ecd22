//! Helpers of tests: shipped providers, sources, requests, and the requests that are kept as files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::config::{
    Config, Located, Place, Problem, Problems, Provider, Secret, SourceConfig, Table,
};
use crate::model::{OriginFault, Proof, Received, Refusal, RequestId, Timestamp};
use crate::verify::challenge::Challenge;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::compile::compile_source;

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// A shipped provider.
pub(crate) fn shipped(name: &str) -> Provider {
    let problems = Problems::default();
    let (_, text) = crate::config::shipped_providers()
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let provider = Provider::read(name, &Table::parse(name, text, &problems), &problems);
    assert_eq!(problems.into_sorted(), []);
    provider
}

/// A source with these secrets and, where it is not empty, this verify table.
pub(crate) fn source(secrets: &[&str], values: &[(&str, &str)], verify: &str) -> SourceConfig {
    // Reading a configuration reads every provider, so it is read once.
    static BARE: LazyLock<SourceConfig> = LazyLock::new(|| {
        let config = "[sources.s]\nprovider = 'custom'\nagent = 'a'\n";
        let config = Config::parse(
            "t",
            config,
            Path::new("."),
            std::iter::empty(),
            &Problems::default(),
        )
        .unwrap();
        config.sources.iter().next().unwrap().clone()
    });
    let mut source = BARE.clone();
    let place = Place {
        file: "t".into(),
        line: 1,
    };
    let located = |text: &str| Located {
        value: text.to_owned(),
        place: place.clone(),
    };
    source.secrets = secrets
        .iter()
        .enumerate()
        .map(|(n, s)| Located {
            value: Secret::new(format!("literal {}", n + 1), *s),
            place: place.clone(),
        })
        .collect();
    source.values = values
        .iter()
        .map(|(k, v)| (located(k), located(v)))
        .collect();
    if !verify.is_empty() {
        source.verify = Some(Table::parse("verify.toml", verify, &Problems::default()));
    }
    source
}

pub(crate) fn compile(
    source: &SourceConfig,
    provider: Option<&Provider>,
) -> Result<(Scheme, Vec<Challenge>), Vec<Problem>> {
    let problems = Problems::default();
    match compile_source(source, provider, true, &problems) {
        (Some(scheme), Some(challenges)) if !problems.any_error() => Ok((scheme, challenges)),
        (scheme, challenges) => {
            assert!(problems.any_error(), "nothing is left out in silence");
            drop((scheme, challenges));
            Err(problems.into_sorted())
        }
    }
}

/// The scheme of an inline table, with one secret.
pub(crate) fn scheme(verify: &str) -> Scheme {
    compile(&source(&["a-long-secret"], &[], verify), None)
        .map(|(scheme, _)| scheme)
        .unwrap()
}

pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Received {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Received {
        id: RequestId::new(),
        at: NOW,
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: target.to_owned(),
        url: format!("https://hooks.example.com{target}"),
        headers: map,
        body: body.to_vec().into(),
        peer: [127, 0, 0, 1].into(),
        certificate: None,
    }
}

pub(crate) fn post(headers: &[(&str, &str)], body: &str) -> Received {
    request("POST", "/hooks/s", headers, body.as_bytes())
}

pub(crate) fn fault(result: Result<Proof, Refusal>) -> Option<OriginFault> {
    match result {
        Ok(_) => None,
        Err(Refusal::Origin(fault, _)) => Some(fault),
        Err(other) => panic!("{other:?}"),
    }
}

/// The HMAC-SHA256 of a body, in hexadecimal digits.
pub(crate) fn hmac_sha256(secret: &str, body: &str) -> String {
    use crate::verify::keys::mac::{Algorithm, RunningDigest};
    let mut mac = RunningDigest::keyed(Algorithm::Sha256, secret.as_bytes());
    mac.take(body.as_bytes());
    hex::encode(mac.finish().as_bytes())
}

pub(super) fn signed(scheme: &Scheme, mut request: Received) -> Received {
    for (name, value) in scheme.sign(0, &request, NOW).unwrap() {
        request.headers.insert(name, value);
    }
    request
}

pub(super) fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

pub(super) fn json(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a fault is the one a case expects, or tells more exactly what the case leaves open.
pub(super) fn says(reason: &str, expected: Option<&str>) -> bool {
    expected == Some(reason)
        || matches!(
            (expected, reason),
            (Some("wrong_signature"), "wrong_secret" | "body_changed")
                | (Some("claim_mismatch"), "body_changed")
        )
}

/// A kept request, and what its file says of it.
pub(crate) struct Case {
    pub(super) place: String,
    pub(crate) received: Received,
    pub(super) secrets: Vec<String>,
    pub(super) values: Vec<(String, String)>,
    pub(super) now: Timestamp,
    pub(super) expect: Value,
}

impl Case {
    fn read(place: String, case: &Value) -> Self {
        let text = |key: &str| case[key].as_str().map(str::to_owned);
        let body = match (text("body"), text("body_base64")) {
            (Some(body), None) => body.into_bytes(),
            (None, Some(body)) => {
                base64::Engine::decode(&base64::prelude::BASE64_STANDARD, body).unwrap()
            }
            _ => panic!("{place}: one of body and body_base64"),
        };
        let list = |key: &str| {
            case[key]
                .as_array()
                .unwrap_or_else(|| panic!("{place}: {key} is a list"))
        };
        let text_of = |value: &Value| value.as_str().unwrap().to_owned();
        let headers: Vec<(String, String)> = list("headers")
            .iter()
            .map(|pair| (text_of(&pair[0]), text_of(&pair[1])))
            .collect();
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut received = request(
            &text("method").unwrap(),
            &text("target").unwrap(),
            &headers,
            &body,
        );
        if let Some(url) = text("url") {
            received.url = url;
        }
        let secrets = list("secrets").iter().map(text_of).collect();
        let values = case["values"].as_object().into_iter().flatten();
        let values = values
            .map(|(name, value)| (name.clone(), text_of(value)))
            .collect();
        let now = Timestamp::parse(&text("now").unwrap()).unwrap();
        Self {
            place,
            received,
            secrets,
            values,
            now,
            expect: case["expect"].clone(),
        }
    }

    pub(crate) fn source(&self) -> SourceConfig {
        let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
        let values: Vec<(&str, &str)> = self
            .values
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        source(&secrets, &values, "")
    }

    pub(crate) fn scheme(&self, provider: &Provider) -> Scheme {
        let compiled = compile(&self.source(), Some(provider));
        compiled
            .unwrap_or_else(|problems| panic!("{}: {problems:#?}", self.place))
            .0
    }

    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn is_good(&self) -> bool {
        self.expect["verdict"] == "accept"
    }
}

/// The cases of a provider: a file is one of them, or a list.
pub(crate) fn cases(provider: &str) -> Vec<Case> {
    let folder = vectors().join(provider);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} has no cases", folder.display()));
    let mut all = Vec::new();
    for file in files {
        let path = file.unwrap().path();
        match json(&path) {
            Value::Array(list) => {
                let place = |case: &Value| format!("{}: {}", path.display(), case["name"]);
                all.extend(list.iter().map(|case| Case::read(place(case), case)));
            }
            case => all.push(Case::read(path.display().to_string(), &case)),
        }
    }
    all
}

//! Send an event to a running gateway, signed as the source's provider would sign it.

use std::io::{IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::{CommandResult, ConfigFile, answer, reachable, say, tally};
use crate::app;
use crate::config::{Config, Located, Problems, Sample, Secret};
use crate::model::{Clock, Received, RequestId, Timestamp};
use crate::net::Client;
use crate::source::Source;
use crate::verify::{KeyPair, Signer};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Send {
    /// The source
    source: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Name of one of the provider's sample events [default: the first]
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// The body, instead of a sample's
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// A further header
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Address to send it to [default: this gateway's own listener]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// For providers with a key pair: the private key, made and kept here when the file is not there
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print the signed request instead of sending it
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(send: &Send) -> CommandResult {
    let problems = Problems::default();
    let Some((config, sources)) = app::compile_source(&send.file.config, &send.source, &problems)
    else {
        let problems = problems.into_sorted();
        problems
            .iter()
            .for_each(|problem| say(&problem.to_string()));
        say(&format!(
            "{}: {}",
            send.file.config.display(),
            tally(&problems)
        ));
        return Ok(ExitCode::FAILURE);
    };
    let source = sources.get(&send.source).ok_or_else(|| {
        let names: Vec<&str> = sources
            .iter()
            .map(|source| source.config.name.as_str())
            .collect();
        anyhow!(
            "no source is called {:?}; there are {}",
            send.source,
            names.join(", ")
        )
    })?;
    let now = Clock::system().now();
    let request = request(send, &config, source, now)?;
    let pair = if source.scheme.has_key_pair() {
        Some(pair(send, source, now)?)
    } else {
        None
    };
    let by = pair
        .as_ref()
        .map_or_else(|| Signer::Secret(live(source, now)), Signer::Pair);
    let signed = source
        .scheme
        .signed(by, &request, now)
        .map_err(|what| anyhow!("cannot sign it: {what}"))?;
    if send.print {
        print(&signed)?;
        return Ok(ExitCode::SUCCESS);
    }
    post(send, &config, signed).await
}

/// The event, before it is signed.
fn request(
    send: &Send,
    config: &Config,
    source: &Source,
    now: Timestamp,
) -> anyhow::Result<Received> {
    let provider = config.providers.get(&source.config.provider.value);
    let samples = provider.map_or(&[][..], |provider| &provider.samples);
    let sample = match &send.event {
        Some(name) => Some(
            samples
                .iter()
                .find(|sample| sample.name == *name)
                .ok_or_else(|| {
                    let names: Vec<&str> =
                        samples.iter().map(|sample| sample.name.as_str()).collect();
                    anyhow!(
                        "the provider has no sample {name:?}; there are: {}",
                        names.join(", ")
                    )
                })?,
        ),
        // A sample that the source keeps shows more than one that it leaves out.
        None => samples
            .iter()
            .find(|sample| source.mapping.wants(&sample.name))
            .or(samples.first()),
    };
    let body: Bytes = match (&send.body, sample) {
        (Some(file), _) => std::fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .into(),
        (None, Some(sample)) => anew(source, &sample.body).into(),
        (None, None) => {
            bail!("the provider of this source has no sample event; give a body: --body FILE")
        }
    };
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json");
    headers.insert(CONTENT_TYPE, json);
    for (name, value) in sample.map_or(&[][..], |sample: &Sample| &sample.headers) {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    // A header that names the event names another one each time, or the gateway would know it already.
    for id in &source.scheme.event_id {
        if let Some(name) = id.strip_prefix("header:") {
            headers.insert(
                HeaderName::try_from(name)?,
                HeaderValue::try_from(uuid::Uuid::new_v4().to_string())?,
            );
        }
    }
    for line in &send.header {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| anyhow!("--header is NAME: VALUE"))?;
        headers.insert(
            HeaderName::try_from(name.trim())?,
            HeaderValue::try_from(value.trim())?,
        );
    }
    let target = format!("/hooks/{}", source.config.name);
    Ok(Received {
        id: RequestId::new(),
        at: now,
        method: Method::POST,
        url: format!("{}{target}", config.server.public_url),
        target,
        headers,
        body,
        peer: Ipv4Addr::LOCALHOST.into(),
        certificate: None,
    })
}

/// The body of a sample as one that was never sent, or the gateway would know already what is signed. Where the body holds
/// the event's id, it stays that event.
fn anew(source: &Source, body: &str) -> String {
    let is_named = source
        .scheme
        .event_id
        .iter()
        .any(|place| !place.starts_with("header:"));
    let number = uuid::Uuid::new_v4();
    let is_object = matches!(serde_json::from_str(body), Ok(serde_json::Value::Object(fields)) if !fields.is_empty());
    match body.trim_end().strip_suffix('}') {
        Some(open) if is_object && !is_named => {
            format!("{open},\"sluicegate_send\":\"{number}\"}}")
        }
        _ => body.to_owned(),
    }
}

/// The key pair to sign with: the one that is kept, or one made for the occasion.
fn pair(send: &Send, source: &Source, now: Timestamp) -> anyhow::Result<KeyPair> {
    if let Some(file) = send.key.as_ref().filter(|file| file.exists()) {
        return kept_pair(file, source);
    }
    let pair = source
        .scheme
        .make_pair()
        .map_err(|what| anyhow!("cannot make a key pair: {what}"))?;
    let public = source
        .scheme
        .public_key(&pair, now)
        .map_err(|what| anyhow!("cannot make a key pair: {what}"))?;
    match &send.key {
        Some(file) => {
            crate::config::private::write_private(file, pair.to_pem().trim_end())
                .with_context(|| format!("cannot write {}", file.display()))?;
            let beside = public_file(file);
            std::fs::write(&beside, &public)
                .with_context(|| format!("cannot write {}", beside.display()))?;
            say(&format!(
                "made a key pair; let the source know its public key: secrets = [\"file:{}\"], then restart the gateway",
                beside.display()
            ));
        }
        None => {
            say(
                "made a key pair for this one event; the gateway accepts it only if the source knows its public key:",
            );
            say(public.trim_end());
            say("keep one over several events with --key FILE");
        }
    }
    Ok(pair)
}

/// The key pair in a file. An error says what the file holds and which key is wanted.
fn kept_pair(file: &Path, source: &Source) -> anyhow::Result<KeyPair> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let wanted = source.scheme.private_key().unwrap_or("a private key");
    let pair = KeyPair::from_pem(&text);
    let held = match &pair {
        Some(pair) if pair.kind() == wanted => None,
        Some(pair) => Some(pair.kind().to_owned()),
        None => Some(content_of(&text)),
    };
    match (pair, held) {
        (Some(pair), None) => Ok(pair),
        (_, held) => bail!(
            "{} holds {}; source {} signs with {wanted} in PEM (PKCS #8). With a file that does not exist, --key makes one",
            file.display(),
            held.unwrap_or_default(),
            source.config.name,
        ),
    }
}

/// The content of a key file that holds no usable private key, in words.
fn content_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let label = text
        .split_once("-----BEGIN ")
        .and_then(|(_, rest)| rest.split_once("-----"))
        .map(|(label, _)| label);
    match label {
        None if text.trim().is_empty() => "nothing".into(),
        None => "no key in PEM".into(),
        Some("CERTIFICATE") => "a certificate".into(),
        Some(label) if label.ends_with("PUBLIC KEY") => "a public key".into(),
        Some("ENCRYPTED PRIVATE KEY") => "a private key with a passphrase".into(),
        Some("OPENSSH PRIVATE KEY") => "a private key in the form of OpenSSH".into(),
        Some("EC PRIVATE KEY") => "an EC private key in another form (SEC 1)".into(),
        Some("PRIVATE KEY" | "RSA PRIVATE KEY") => {
            "a private key that is damaged or of an unknown kind".into()
        }
        Some(label) => format!("\"{}\" in PEM", label.escape_debug()),
    }
}

fn public_file(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".pub");
    file.with_file_name(name)
}

async fn post(send: &Send, config: &Config, signed: Received) -> CommandResult {
    let base = match &send.to {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(config.server.listen)),
    };
    let uri: Uri = format!("{base}{}", signed.target)
        .parse()
        .context("--to is no address like http://127.0.0.1:8080")?;
    let mut request = Request::post(uri).body(signed.body)?;
    *request.headers_mut() = signed.headers;
    request.headers_mut().remove(HOST);
    let client =
        Client::new(CONNECT, config.upstream.ca_file.as_deref()).context("cannot make a client")?;
    let heard = client
        .send(request, ANSWER, MAX_ANSWER)
        .await
        .with_context(|| format!("{base} does not answer; does the gateway run?"))?;
    say(&format!(
        "{base}{} answered {}",
        signed.target,
        heard.status()
    ));
    answer(&String::from_utf8_lossy(heard.body()))?;
    Ok(if heard.status().is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first secret that has not ended.
fn live(source: &Source, now: Timestamp) -> usize {
    let is_live = |secret: &Located<Secret>| secret.until().is_none_or(|until| until > now);
    source.config.secrets.iter().position(is_live).unwrap_or(0)
}

/// The request as it would stand on the wire, byte for byte, so that a file of it can be explained and sent. Headers that
/// show a secret are part of it.
fn print(request: &Received) -> std::io::Result<()> {
    let mut text = format!("POST {} HTTP/1.1\n", request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(&request.body)?;
    // A prompt of the shell stands on a line of its own.
    if out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()
}

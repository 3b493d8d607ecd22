//! The gateway that a command speaks to: where its admin API is, what it wants to be shown, and its answers.

use std::fmt;
use std::io::{self, StdoutLock, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use serde_json::Value;

use super::sheet::{self, Sheet, Times};
use super::{print, reachable, usage};
use crate::app;
use crate::config::{Config, Problems, Secret, Weight};
use crate::net::Client;

/// The environment variable with the token where nobody names another.
const TOKEN_ENV: &str = "SLUICEGATE_ADMIN_TOKEN";

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);

/// The largest answer: one event, with everything the API shows of it.
const MAX_ANSWER: u64 = 64 << 20;

/// The exit code when there is no such thing.
pub(super) const NOT_FOUND: u8 = 3;

/// Options that name a gateway.
#[derive(Debug, Args)]
pub(in crate::cli) struct GatewayArgs {
    /// The gateway's configuration file, for the address and the token of its admin API
    #[arg(short, long, value_name = "FILE", default_value = "sluicegate.toml")]
    config: PathBuf,
    /// The address of the admin API, instead of a configuration file
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// The environment variable that holds the admin token
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// How times are told
    #[arg(
        long = "time",
        value_name = "FORM",
        default_value = "ago",
        hide_possible_values = false
    )]
    pub(in crate::cli) times: Times,
}

/// A command that lists everything of a kind.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// A gateway that can be asked.
pub(in crate::cli) struct Gateway {
    client: Client,
    base: String,
    token: Secret,
}

/// Answer of the admin API.
#[derive(Debug, PartialEq)]
pub(in crate::cli) enum ApiAnswer {
    /// This.
    Answered(Value),
    /// There is no such thing, in its words.
    NotFound(String),
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("base", &self.base)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl GatewayArgs {
    /// The gateway of a configuration file.
    pub(in crate::cli) const fn of(
        config: PathBuf,
        admin: Option<String>,
        token_env: Option<String>,
    ) -> Self {
        Self {
            config,
            admin,
            token_env,
            times: Times::Ago,
        }
    }

    /// Finds the address and the token.
    pub(in crate::cli) fn find(&self) -> anyhow::Result<Gateway> {
        let (base, token) = match &self.admin {
            Some(url) => (
                base(url)?,
                from_env(self.token_env.as_deref().unwrap_or(TOKEN_ENV))?,
            ),
            None => {
                let problems = Problems::default();
                let config = Config::load(&self.config, &problems);
                // What is wrong with secrets of sources does not matter here: the file may be read where only an
                // operator works.
                let Some(config) = config else {
                    let problems = problems.into_sorted();
                    let error = problems
                        .iter()
                        .find(|problem| problem.weight == Weight::Error);
                    let why = error.map_or_else(
                        || "the configuration cannot be read".into(),
                        ToString::to_string,
                    );
                    bail!("{why}\n  or name the admin API: --admin URL --token-env NAME");
                };
                let token = match &self.token_env {
                    Some(name) => from_env(name)?,
                    None => configured(&config)?,
                };
                (format!("http://{}", reachable(config.admin.listen)), token)
            }
        };
        let client = Client::new(CONNECT, None).context("cannot make a client")?;
        Ok(Gateway {
            client,
            base,
            token,
        })
    }
}

impl ListArgs {
    /// Shows the list of that name, or says that it has nothing in it.
    pub(in crate::cli) async fn show(
        self,
        name: &str,
        nothing: &str,
        print: fn(&mut Sheet<StdoutLock<'static>>, &Value) -> io::Result<bool>,
    ) -> anyhow::Result<ExitCode> {
        let asked = self.gateway.find()?.ask(&format!("/{name}")).await?;
        let (mut out, mut talk) = sheet::sheets(self.gateway.times);
        let Some(page) = asked.or_say(&mut talk, name) else {
            return Ok(NOT_FOUND.into());
        };
        if self.json {
            print::json(&mut out, &page)?;
        } else if !print(&mut out, &page)? {
            print::say(&mut talk, nothing);
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Gateway {
    /// Asks; the path is below `/api/v1`.
    pub(super) async fn ask(&self, path: &str) -> anyhow::Result<ApiAnswer> {
        let answer = self.send(Method::GET, path, Bytes::new(), ANSWER).await?;
        judge(answer.status(), answer.body(), &self.base, &self.token)
    }

    /// Has something done.
    pub(super) async fn tell(&self, path: &str, what: &Value) -> anyhow::Result<ApiAnswer> {
        self.tell_within(path, what, ANSWER).await
    }

    /// The same, with another time for the answer.
    pub(super) async fn tell_within(
        &self,
        path: &str,
        what: &Value,
        time: Duration,
    ) -> anyhow::Result<ApiAnswer> {
        let body = if what.is_null() {
            Bytes::new()
        } else {
            what.to_string().into()
        };
        let answer = self.send(Method::POST, path, body, time).await?;
        judge(answer.status(), answer.body(), &self.base, &self.token)
    }

    /// Asks for bytes as they are. The other side: what there is instead, as it says it.
    pub(super) async fn fetch(&self, path: &str) -> anyhow::Result<Result<Bytes, String>> {
        let answer = self.send(Method::GET, path, Bytes::new(), ANSWER).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Ok(answer.into_body()));
        }
        match judge(answer.status(), answer.body(), &self.base, &self.token)? {
            ApiAnswer::NotFound(why) => Ok(Err(why)),
            ApiAnswer::Answered(_) => {
                bail!(
                    "{} answered {}; is it the admin API of a gateway?",
                    self.base,
                    answer.status()
                )
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        time: Duration,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", self.token.expose()].concat())
            .map_err(|_| anyhow!("the admin token ({}) cannot stand in a header", self.token))?;
        bearer.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.base))
            .header(AUTHORIZATION, bearer);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body).context("cannot make a request")?;
        self.client
            .send(request, time, MAX_ANSWER)
            .await
            .with_context(|| {
                format!(
                    "the admin API at {} does not answer; does the gateway run?",
                    self.base
                )
            })
    }
}

impl ApiAnswer {
    /// The answer; where nothing was found, a message says what was asked for.
    pub(super) fn or_say(self, talk: &mut impl Write, what: &str) -> Option<Value> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::NotFound(why) => {
                print::say(
                    talk,
                    &sheet::prose(&format!("error: {what}: {why}"), sheet::talk_columns()),
                );
                None
            }
        }
    }
}

/// Judges an answer. Its words come from outside until they are escaped.
fn judge(status: StatusCode, body: &[u8], base: &str, token: &Secret) -> anyhow::Result<ApiAnswer> {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(_) => bail!("{base} answered {status} and no JSON; is it the admin API of a gateway?"),
    };
    if status.is_success() {
        return Ok(ApiAnswer::Answered(body));
    }
    let (Some(detail), Some(code)) = (body["detail"].as_str(), body["code"].as_str()) else {
        bail!("{base} answered {status}; is it the admin API of a gateway?");
    };
    let detail = print::line(detail);
    match (status, code) {
        (StatusCode::NOT_FOUND, "not_found") => Ok(ApiAnswer::NotFound(detail)),
        (StatusCode::UNAUTHORIZED, _) => {
            bail!("the gateway at {base} does not know the admin token ({token})")
        }
        _ => bail!("{detail} ({} {})", status.as_u16(), print::line(code)),
    }
}

/// An address as typed, without a slash at the end.
fn base(url: &str) -> anyhow::Result<String> {
    let url = url.trim_end_matches('/');
    let good = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    if good && url.contains('@') {
        return Err(usage(
            "--admin takes no name and no password; the token comes by --token-env NAME".to_owned(),
        ));
    }
    if !good {
        return Err(usage(format!(
            "--admin cannot be \"{}\"; write for example http://127.0.0.1:8081",
            print::line(url)
        )));
    }
    Ok(url.to_owned())
}

fn from_env(name: &str) -> anyhow::Result<Secret> {
    match std::env::var(name) {
        Ok(token) if !token.is_empty() => Ok(Secret::new(format!("env:{name}"), token)),
        _ => {
            bail!(
                "the environment variable {name} does not hold the admin token; set it, or name another: --token-env"
            )
        }
    }
}

/// The token of a configuration, or the one that the gateway made beside its inbox.
fn configured(config: &Config) -> anyhow::Result<Secret> {
    if let Some(token) = &config.admin.token {
        return Ok(token.clone());
    }
    let file = app::admin_token_file(config);
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "cannot read the admin token from {}; or name the variable that holds it: --token-env",
            file.display()
        )
    })?;
    Ok(Secret::new(format!("file:{}", file.display()), text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<ApiAnswer, String> {
        let token = Secret::new("env:T", "the-token-itself");
        let status = StatusCode::from_u16(status).expect("a status");
        judge(status, body.as_bytes(), "http://x", &token).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_missing_event_differs_from_a_wrong_address() {
        let missing = r#"{"detail":"There is no such event.","code":"not_found"}"#;
        assert_eq!(
            judged(404, missing),
            Ok(ApiAnswer::NotFound("There is no such event.".into()))
        );
        for (status, body) in [
            (404, "not here"),
            (
                404,
                r#"{"detail":"Nothing answers at this path.","code":"no_such_path"}"#,
            ),
            (200, "<html>"),
            (302, "{}"),
        ] {
            assert!(judged(status, body).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn what_a_gateway_says_is_escaped_and_the_token_never_told() {
        let said = judged(409, r#"{"detail":"\u001b[2Jgone","code":"source_gone"}"#)
            .expect_err("a conflict");
        assert_eq!(said, "\\u{1b}[2Jgone (409 source_gone)");
        let said = judged(401, r#"{"detail":"x","code":"unauthorized"}"#).expect_err("a refusal");
        assert!(
            said.contains("env:T") && !said.contains("the-token-itself"),
            "{said}"
        );
    }

    #[test]
    fn a_listener_on_every_address_is_called_on_the_loopback() {
        let reachable = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reachable("0.0.0.0:8081"), "127.0.0.1:8081");
        assert_eq!(reachable("[::]:8081"), "[::1]:8081");
        assert_eq!(reachable("10.0.0.1:1"), "10.0.0.1:1");
    }

    #[test]
    fn an_address_is_http_and_has_no_slash_at_the_end() {
        assert_eq!(
            base("http://127.0.0.1:8081/").expect("an address"),
            "http://127.0.0.1:8081"
        );
        for wrong in [
            "",
            "127.0.0.1:8081",
            "ftp://a",
            "http://",
            "http://a?b",
            "/a",
            "http://a:b@c",
        ] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }
}

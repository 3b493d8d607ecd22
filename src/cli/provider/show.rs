//! The page of a provider for an operator: the steps to connect it, its secrets, its events.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::super::sheet::wrap;
use super::super::{CommandResult, answer, say, tell};
use super::{channel, known};
use crate::config::{Provider, Table, Value, find_provider, near_provider};
use crate::verify::reasons;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowProvider {
    /// Its name, or one of its other names
    name: String,
    /// A configuration file, for the providers of its folder
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(show: &ShowProvider) -> CommandResult {
    let Some(config) = known(show.config.as_deref()) else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(provider) = find_provider(&config.providers, &show.name) else {
        let near = near_provider(&config.providers, &show.name);
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        say(&format!("no provider is called {:?}{hint}", show.name));
        return Ok(ExitCode::FAILURE);
    };
    let shown = ProviderPage::new(provider);
    if show.json {
        answer(&shown.json(provider).to_string())?;
    } else {
        tell(&shown.text(provider))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Width of the second column, so that a line has 80 columns at most.
const VALUE: usize = 65;

/// Width of a step behind its number.
const WIDE: usize = 75;

/// Facts of a `[verify]` section that are shown.
struct ProviderPage {
    scheme: String,
    places: Vec<String>,
    secret: &'static str,
    values: Vec<String>,
    brings_secret: bool,
    bodies: Vec<String>,
    /// Gaps of the check, each with its reason.
    open: Vec<(String, String)>,
}

impl ProviderPage {
    fn new(provider: &Provider) -> Self {
        let empty = Table::empty(provider.place.clone());
        let verify = provider.verify.as_ref().unwrap_or(&empty);
        let text = |key: &str| texts(verify, key).into_iter().next();
        let scheme = text("scheme").unwrap_or_else(|| "hmac".into());
        let secret = match (scheme.as_str(), text("secret_encoding").as_deref()) {
            ("none", _) => "none: nobody is checked, so keep the address to yourself",
            ("ed25519" | "ecdsa-p256" | "rsa-pkcs1" | "rsa-pss", _)
                if verify.get("cert_url").is_some() =>
            {
                "none: the certificate is fetched from the provider's own host"
            }
            ("ed25519" | "ecdsa-p256" | "rsa-pkcs1" | "rsa-pss", _)
                if verify.get("public_key").is_some() =>
            {
                "none: the provider's published key is in the file; set secrets to use another"
            }
            ("ed25519" | "ecdsa-p256" | "rsa-pkcs1" | "rsa-pss", _) => {
                "the public key that the provider shows"
            }
            ("jwt", _)
                if texts(verify, "algorithms")
                    .iter()
                    .all(|word| !word.starts_with("HS")) =>
            {
                "the public key that the provider shows"
            }
            ("basic", _) => {
                "name and password with a colon between them, as you gave them to the provider"
            }
            ("token", _) => "the token that you gave to the provider, or that it shows",
            (_, Some("base64" | "whsec" | "hex")) => {
                "the signing secret exactly as the provider shows it; it is decoded here"
            }
            _ => "the signing secret exactly as the provider shows it",
        };
        Self {
            places: texts(verify, "signature"),
            secret,
            values: texts(verify, "config"),
            bodies: texts(verify, "body_kind"),
            open: reasons(verify),
            brings_secret: provider
                .challenges
                .iter()
                .any(|challenge| challenge.get("store_secret").is_some()),
            scheme,
        }
    }

    fn text(&self, provider: &Provider) -> String {
        let mut lines = vec![provider.title.clone()];
        let mut line = |what: &str, text: &str| {
            // An address stays whole, so that it can be copied.
            let parts = if is_place(text) {
                vec![text.to_owned()]
            } else {
                wrap(text, VALUE, VALUE)
            };
            for (at, part) in parts.into_iter().enumerate() {
                lines.push(format!("  {:<12} {part}", if at == 0 { what } else { "" }));
            }
        };
        let aliases: Vec<&str> = provider
            .aliases
            .iter()
            .map(|alias| alias.as_str())
            .collect();
        if !aliases.is_empty() {
            line("also called", &aliases.join(", "));
        }
        let (title, address) = document(&provider.docs);
        line("document", title);
        if let Some(address) = address {
            line("", address);
        }
        line("known by", &provider.evidence);
        line("scheme", &self.scheme);
        if !self.places.is_empty() {
            line("signature", &self.places.join(", "));
        }
        line("secret", self.secret);
        if !self.bodies.is_empty() {
            line("bodies", &self.bodies.join(", "));
        }
        for (what, why) in &self.open {
            line("left open", &format!("{}: {why}", gap(what)));
        }
        if let Some(deadline) = provider.deadline {
            line(
                "waits",
                &format!("{} s for an answer", deadline.as_secs_f64()),
            );
        }
        if let Some(retries) = &provider.retries {
            line(
                "tries again",
                match retries.as_str() {
                    "never" => "never",
                    "hours" => "for hours",
                    _ => "for days",
                },
            );
        }
        if !provider.challenges.is_empty() {
            let count = provider.challenges.len();
            line(
                "handshakes",
                &format!("{count}, answered by the gateway while it runs"),
            );
        }
        let events: Vec<&str> = provider
            .samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect();
        if !events.is_empty() {
            line("samples", &events.join(", "));
        }
        if let Some(doc) = channel::described(provider) {
            for (what, text) in channel::lines(&doc) {
                line(what, &text);
            }
        }
        lines.push(steps(provider));
        lines.extend(self.first_source(provider));
        lines.join("\n")
    }

    /// A first source with this provider, and the commands that go with it.
    fn first_source(&self, provider: &Provider) -> Vec<String> {
        let name = &provider.name;
        let mut lines = Vec::new();
        lines.push(format!(
            "[sources.{name}]\nprovider = \"{name}\"\nagent    = \"AGENT-ID\""
        ));
        let variable = name.to_ascii_uppercase().replace('-', "_");
        if self.brings_secret {
            lines.push(format!("enrol_file = \"{name}.secrets\""));
        } else if !self.secret.starts_with("none") {
            lines.push(format!("secrets  = [\"env:{variable}_SECRET\"]"));
        }
        if !self.values.is_empty() {
            let values: Vec<String> = self
                .values
                .iter()
                .map(|value| format!("{value} = \"…\""))
                .collect();
            lines.push(format!("values   = {{ {} }}", values.join(", ")));
        }
        if self.brings_secret {
            lines.push(format!(
                "\nThe provider's first request brings the secret. This prints the address for it:\n  \
                 sluicegate source enrol {name}\n\
                 Then compare what came in (--show) and have it count (--confirm FINGERPRINT)."
            ));
        }
        if provider.map.prompt.is_some() {
            lines.push(
                "\nThe provider's file makes the prompt, unless the source has one of its own."
                    .into(),
            );
        }
        lines.push(format!(
            "\nTry it with a signed sample:\n  sluicegate send {name} --config FILE"
        ));
        lines
    }

    fn json(&self, provider: &Provider) -> serde_json::Value {
        let mut page = json!({
            "name": provider.name,
            "aliases": provider.aliases.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(),
            "title": provider.title,
            "setup": { "page": provider.setup.page, "steps": provider.setup.steps },
            "prompt": provider.map.prompt.as_ref().map(|prompt| prompt.as_str()),
            "docs": provider.docs,
            "evidence": provider.evidence,
            "scheme": self.scheme,
            "signature": self.places,
            "secret": self.secret,
            "values": self.values,
            "body_kind": self.bodies,
            "left_open": self.open.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect::<Vec<_>>(),
            "brings_secret": self.brings_secret,
            "deadline_seconds": provider.deadline.map(|deadline| deadline.as_secs_f64()),
            "retries": provider.retries,
            "max_body_bytes": provider.max_body,
            "challenges": provider.challenges.len(),
            "samples": provider.samples.iter().map(|sample| &sample.name).collect::<Vec<_>>(),
        });
        if let Some(doc) = channel::described(provider) {
            page["channel"] = channel::to_json(&doc);
        }
        page
    }
}

/// The document's title, and where it was read: an address, or a repository and a path.
fn document(docs: &str) -> (&str, Option<&str>) {
    let mut splits = docs
        .match_indices(", ")
        .map(|(at, comma)| (&docs[..at], &docs[at + comma.len()..]));
    splits
        .find(|(_, place)| is_place(place))
        .map_or((docs, None), |(title, place)| (title, Some(place)))
}

/// A gap of a check, in words.
fn gap(word: &str) -> &'static str {
    match word {
        "body" => "the body is not proved",
        "id" => "the event's id is not proved",
        "type" => "the event's type is not proved",
        "time" => "the time is not checked",
        _ => "ways to sign overlap",
    }
}

/// True if a text begins with an address, with `https://` or without.
fn is_place(text: &str) -> bool {
    let first = text.split(' ').next().unwrap_or_default();
    let host = first
        .strip_prefix("https://")
        .unwrap_or(first)
        .split_once('/');
    host.is_some_and(|(host, _)| host.contains('.'))
}

/// The steps at the provider, each on lines of its own.
fn steps(provider: &Provider) -> String {
    let mut lines = String::from("\nAt the provider:\n");
    if let Some(page) = &provider.setup.page {
        lines.push_str(&format!("  {page}\n"));
    }
    for (number, step) in provider.setup.steps.iter().enumerate() {
        for (at, line) in wrap(step, WIDE, WIDE).into_iter().enumerate() {
            let before = if at == 0 {
                format!("{:>3}. ", number + 1)
            } else {
                " ".repeat(5)
            };
            lines.push_str(&format!("{before}{line}\n"));
        }
    }
    if provider.setup.steps.is_empty() {
        lines.push_str("  Set the address to https://YOUR-HOST/hooks/NAME, and the type to JSON where it\n  asks.\n");
    }
    lines.push_str("\nThen, with your own words where the capitals are:\n");
    lines
}

fn texts(table: &Table, key: &str) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    match table.get(key).map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().filter_map(|item| text(&item.value)).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_any_provider_fits_eighty_columns() {
        let config = known(None).unwrap();
        for provider in config.providers.values() {
            let text = ProviderPage::new(provider).text(provider);
            let address = |line: &str| {
                ["https://", "github.com/"]
                    .iter()
                    .any(|begin| line.trim().starts_with(begin))
            };
            let long = text
                .lines()
                .find(|line| line.chars().count() > 80 && !address(line));
            assert_eq!(long, None, "{}", provider.name);
        }
    }

    #[test]
    fn the_steps_of_a_provider_are_numbered_and_its_other_names_are_said() {
        let config = known(None).unwrap();
        let provider = find_provider(&config.providers, "ghe").unwrap();
        let text = ProviderPage::new(provider).text(provider);
        for part in [
            "also called  gh, ghe",
            "  1. In the repository",
            "  5. GitHub sends a ping",
            "provider = \"github\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

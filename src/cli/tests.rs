//! Tests of `deploy/`: every command is one of ours, every setting is known, every secret is there.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser as _;
use yaml_rust2::{Yaml, YamlLoader};

use super::Cli;
use crate::config::{Config, Problems};

const SETTINGS: &str = include_str!("../../deploy/sluicegate.toml");

/// The value at a key, also of what was laid under a table with `<<`.
fn at<'a>(table: &'a Yaml, key: &str) -> &'a Yaml {
    match (&table[key], &table["<<"]) {
        (Yaml::BadValue, Yaml::BadValue) => &table[key],
        (Yaml::BadValue, under) => at(under, key),
        (own, _) => own,
    }
}

fn texts(list: &Yaml) -> Vec<String> {
    list.as_vec()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

/// The services of a file that are ours: name and table.
fn ours(file: &Yaml) -> Vec<(String, &Yaml)> {
    let services = file["services"].as_hash().expect("services");
    let named = services
        .iter()
        .map(|(name, service)| (name.as_str().expect("a name").to_owned(), service));
    named
        .filter(|(_, service)| at(service, "image").as_str() == Some("sluicegate"))
        .collect()
}

/// Every command of a file is ours, and every setting and secret of its services is there. Returns the commands.
fn judge(text: &str) -> Vec<String> {
    let file = YamlLoader::load_from_str(text)
        .expect("it is YAML")
        .remove(0);
    let known: BTreeSet<&str> = file["secrets"]
        .as_hash()
        .expect("secrets")
        .keys()
        .filter_map(Yaml::as_str)
        .collect();
    let mut seen = Vec::new();
    for (name, service) in ours(&file) {
        let command = texts(at(service, "command"));
        let probe = texts(at(at(service, "healthcheck"), "test"));
        for line in [&command[..], &probe[probe.len().min(2)..]]
            .into_iter()
            .filter(|line| !line.is_empty())
        {
            let words = std::iter::once("sluicegate").chain(line.iter().map(String::as_str));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{name}: {error}"));
            let config = line
                .iter()
                .position(|word| word == "--config")
                .and_then(|at| line.get(at + 1));
            let config = config.unwrap_or_else(|| panic!("{name} names no configuration"));
            let mounted = texts(at(service, "volumes"))
                .iter()
                .any(|volume| *volume == format!("./sluicegate.toml:{config}:ro"));
            assert!(mounted, "{name}: {config} is not there");
        }
        seen.push(command.join(" "));
        for needed in at(service, "depends_on")
            .as_hash()
            .into_iter()
            .flat_map(|needs| needs.keys())
        {
            assert!(
                !file["services"][needed.as_str().expect("a name")].is_badvalue(),
                "{name} needs {needed:?}"
            );
        }

        let secrets = texts(at(service, "secrets"));
        let folder = tempfile::tempdir().expect("a folder");
        for secret in &secrets {
            assert!(
                known.contains(secret.as_str()),
                "{name}: {secret} is nowhere"
            );
            let content = if secret == "inbox_url" {
                "postgres://u:p@h/d?sslmode=verify-full"
            } else {
                "0123456789abcdef0123456789abcdef"
            };
            crate::config::private::write_private(&folder.path().join(secret), content)
                .expect("a file");
        }
        let here = |text: &str| text.replace("/run/secrets", &folder.path().display().to_string());
        let environment = at(service, "environment")
            .as_hash()
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                (
                    key.as_str().expect("a name").to_owned(),
                    here(value.as_str().expect("a text")),
                )
            });
        let problems = Problems::default();
        let config = Config::parse(
            "deploy/sluicegate.toml",
            &here(SETTINGS),
            Path::new("."),
            environment,
            &problems,
        );
        let problems: Vec<String> = problems
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            config.is_some() && problems.is_empty(),
            "{name}: {problems:#?}"
        );
    }
    seen
}

#[test]
fn one_node_is_deployed_by_what_there_is() {
    assert_eq!(judge(include_str!("../../deploy/compose.yaml")).len(), 1);
}

#[test]
fn roles_are_deployed_by_what_there_is() {
    let commands = judge(include_str!("../../deploy/compose.scaled.yaml"));
    for role in [
        "migrate",
        "--roles ingress",
        "--roles dispatch",
        "--roles admin",
    ] {
        assert!(
            commands.iter().any(|command| command.contains(role)),
            "{role}: {commands:?}"
        );
    }
    assert_eq!(commands.len(), 6);
}

#[test]
fn the_image_runs_what_there_is() {
    let file = include_str!("../../deploy/Dockerfile");
    let line = file
        .lines()
        .find_map(|line| line.strip_prefix("CMD "))
        .expect("a command");
    let words: Vec<String> = serde_json::from_str(line).expect("a list");
    let words = std::iter::once("sluicegate".to_owned()).chain(words);
    Cli::try_parse_from(words).expect("a command of ours");
    let user = file
        .lines()
        .rfind(|line| line.starts_with("USER "))
        .expect("a user");
    assert!(
        !user.contains("root") && !user.starts_with("USER 0"),
        "{user}"
    );
}

#[test]
fn the_unit_starts_a_command_of_ours_with_secrets_that_its_head_names() {
    let unit = include_str!("../../deploy/sluicegate.service");
    let values = |key: &str| -> Vec<&str> {
        unit.lines()
            .filter_map(|line| line.strip_prefix(key))
            .collect()
    };
    let start = values("ExecStart=");
    Cli::try_parse_from(start[0].split_whitespace())
        .unwrap_or_else(|error| panic!("{start:?}: {error}"));
    let loaded = values("LoadCredential=");
    let loaded: BTreeSet<&str> = loaded
        .iter()
        .filter_map(|line| line.split(':').next())
        .collect();
    let named = unit
        .split("file:/run/credentials/sluicegate.service/")
        .skip(1);
    let named: BTreeSet<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
    assert!(
        loaded.len() >= 4 && loaded == named,
        "{loaded:?} are loaded, {named:?} are named"
    );
    // The fragment of a configuration in its head, without its comment signs.
    let lines = unit.lines().filter_map(|line| line.strip_prefix("#   "));
    let fragment: Vec<&str> = lines
        .skip_while(|line| !line.starts_with("[server]"))
        .collect();
    let wrong = fragment
        .iter()
        .find(|line| !line.starts_with('[') && !line.contains(" = "));
    assert!(fragment.len() >= 12 && wrong.is_none(), "{wrong:?}");
}

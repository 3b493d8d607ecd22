//! The origins of a configuration: the letters of its file, the names of environment variables, one source out of many,
//! and the other files that it names.

use std::path::{Path, PathBuf};

use super::node::{Table, Value};
use super::problem::{Place, Problems};

/// An environment variable that was meant to set something: the name it should have.
pub(super) fn misnamed(table: &Table, key: &str) -> Option<String> {
    let rest = key
        .strip_prefix("SLUICEGATE_")
        .filter(|rest| !rest.starts_with('_'))?;
    let reference = format!("env:{key}");
    if holds(table, &reference) {
        return None;
    }
    let wanted = rest.to_ascii_lowercase();
    let section = table.entries.iter().find_map(|(section, _, node)| {
        let inner = wanted.strip_prefix(section.as_str())?.strip_prefix('_')?;
        match &node.value {
            Value::Table(table) if table.get(inner).is_some() => Some((section, inner)),
            _ => None,
        }
    });
    let (section, inner) = section?;
    Some(format!(
        "SLUICEGATE__{}__{}",
        section.to_ascii_uppercase(),
        inner.to_ascii_uppercase()
    ))
}

/// Leaves one source of a configuration, and nothing that others need: its own commands do without their secrets. One
/// that is not there leaves everything as it is.
pub(super) fn keep_source(table: &mut Table, name: &str) {
    let is_there = table.find(&["sources", name]).is_some();
    if !is_there {
        return;
    }
    table
        .entries
        .retain(|(key, ..)| !matches!(key.as_str(), "keys" | "proxy"));
    for (key, _, node) in &mut table.entries {
        let Value::Table(inner) = &mut node.value else {
            continue;
        };
        match key.as_str() {
            "sources" => inner.entries.retain(|(source, ..)| source == name),
            "upstream" => inner.entries.retain(|(key, ..)| key != "api_key"),
            _ => {}
        }
    }
}

/// True if a text stands anywhere in a table.
fn holds(table: &Table, text: &str) -> bool {
    fn is_in(value: &Value, text: &str) -> bool {
        match value {
            Value::Text(own) => own == text,
            Value::List(list) => list.iter().any(|node| is_in(&node.value, text)),
            Value::Table(table) => holds(table, text),
            _ => false,
        }
    }
    table
        .entries
        .iter()
        .any(|(_, _, node)| is_in(&node.value, text))
}

/// The text of a configuration file, or what is wrong with its letters.
pub(super) fn utf8(file: &Path, bytes: Vec<u8>, problems: &Problems) -> Option<String> {
    let name = file.display().to_string();
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    let place = |line: u32| Place {
        file: name.as_str().into(),
        line,
    };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        problems.error_hint(
            &place(1),
            "this file is UTF-16, and has to be UTF-8",
            "save it again as UTF-8",
        );
        return None;
    }
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let at = error.utf8_error().valid_up_to();
    let bytes = error.into_bytes();
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let byte = bytes.get(at).copied().unwrap_or_default();
    problems.error_hint(
        &place(u32::try_from(line).unwrap_or(u32::MAX)),
        format!("this file is not UTF-8: the byte 0x{byte:02X} stands in this line"),
        format!(
            "save it again as UTF-8; in Latin-1 and Windows-1252 this byte is \"{}\"",
            char::from(byte).escape_debug()
        ),
    );
    None
}

/// Every file that a configuration was read from or names as the place of a secret, beside itself.
pub(super) fn files(table: &Table, base: &Path) -> Vec<PathBuf> {
    fn gather(value: &Value, base: &Path, all: &mut Vec<PathBuf>) {
        match value {
            Value::Text(text) => all.extend(text.strip_prefix("file:").map(|file| base.join(file))),
            Value::List(list) => list.iter().for_each(|node| gather(&node.value, base, all)),
            Value::Table(table) => table
                .entries
                .iter()
                .for_each(|(_, _, node)| gather(&node.value, base, all)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for (key, _, node) in &table.entries {
        // The store is a folder of files that come and go.
        let Value::Table(section) = &node.value else {
            continue;
        };
        for (name, _, node) in &section.entries {
            match (key.as_str(), name.as_str(), &node.value) {
                ("attachments", "store", _) => {}
                (_, "ca_file", Value::Text(file)) if !file.is_empty() => all.push(base.join(file)),
                ("providers", "folder", Value::Text(folder)) if !folder.is_empty() => {
                    let files = std::fs::read_dir(base.join(folder))
                        .into_iter()
                        .flatten()
                        .flatten();
                    all.extend(
                        files
                            .map(|file| file.path())
                            .filter(|path| path.extension().is_some_and(|end| end == "toml")),
                    );
                }
                (_, _, value) => gather(value, base, &mut all),
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_environment_variable_with_one_underscore_is_told() {
        let said = |key: &str| {
            let problems = Problems::default();
            let environment = [(key.to_owned(), "127.0.0.1:1".to_owned())].into_iter();
            assert!(Config::parse("t", "", Path::new("."), environment, &problems).is_some());
            problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert!(
            said("SLUICEGATE_SERVER_LISTEN")[0].contains("SLUICEGATE__SERVER__LISTEN"),
            "{:?}",
            said("SLUICEGATE_SERVER_LISTEN")
        );
        assert!(
            said("SLUICEGATE_DISPATCH_MAX_ATTEMPTS")[0]
                .contains("SLUICEGATE__DISPATCH__MAX_ATTEMPTS")
        );
        for other in [
            "SLUICEGATE_ADMIN_TOKEN",
            "SLUICEGATE_KEY",
            "SLUICEGATE_SOMETHING",
            "SERVER_LISTEN",
        ] {
            assert_eq!(said(other), Vec::<String>::new(), "{other}");
        }
    }

    #[test]
    fn a19_a_file_in_another_encoding_is_said_with_its_line() {
        let read = |bytes: &[u8]| {
            let problems = Problems::default();
            let text = utf8(Path::new("g.toml"), bytes.to_vec(), &problems);
            (
                text,
                problems
                    .into_sorted()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<String>(),
            )
        };
        let (text, said) = read(b"a = 1\nb = \"caf\xe9\"\n");
        assert!(
            text.is_none()
                && said.contains("g.toml:2")
                && said.contains("0xE9")
                && said.contains("\"é\""),
            "{said}"
        );
        assert!(read(b"\xff\xfea\0").1.contains("UTF-16"));
        assert_eq!(read(b"\xef\xbb\xbfa = 1").0.as_deref(), Some("a = 1"));
    }
}

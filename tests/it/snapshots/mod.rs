//! Everything that an operator and an operator's programs see, compared with files in `tests/snapshots/`: every answer
//! of the admin API, the output of every command, the names and labels of the metrics, and the fields of the log lines.
//!
//! A fixed story is played through the real binary and a stand-in upstream. Ids, times, ports and digests are replaced
//! by placeholders (`mask`). When a difference is meant, write the files anew and read the difference in the commit:
//!
//! ```sh
//! SLUICEGATE_SNAPSHOTS=write cargo test --test it -- snapshots
//! ```
//!
//! `SLUICEGATE_BINARY` names another binary to compare, such as the one of an earlier version.

mod answers;
mod commands;
mod mask;
mod story;

use std::path::{Path, PathBuf};

use self::story::Story;

/// The environment variable that has the files written anew.
const WRITE: &str = "SLUICEGATE_SNAPSHOTS";

/// Text of one snapshot, section by section, and where it is kept.
struct Snapshot {
    file: &'static str,
    text: String,
}

impl Snapshot {
    fn new(file: &'static str) -> Self {
        Self {
            file,
            text: String::new(),
        }
    }

    /// Adds a section with a title.
    fn add(&mut self, title: &str, text: &str) {
        self.text.push_str(&format!("=== {title}\n{text}"));
        if !text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/snapshots")
            .join(self.file)
    }

    /// Compares the text with its file, or writes the file. A difference is returned in words.
    fn judge(&self) -> Option<String> {
        if std::env::var(WRITE).is_ok_and(|word| word == "write") {
            std::fs::write(self.path(), &self.text).expect("the folder of snapshots takes files");
            return None;
        }
        let kept = std::fs::read_to_string(self.path()).unwrap_or_default();
        (kept != self.text).then(|| difference(self.file, &kept, &self.text))
    }
}

/// First lines that differ, each with the title of its section.
fn difference(file: &str, kept: &str, now: &str) -> String {
    let mut told = format!("{file} differs from tests/snapshots/{file}:\n");
    let (mut kept, mut now) = (sections(kept), sections(now));
    for (title, before) in &mut kept {
        let Some(at) = now.iter().position(|(other, _)| other == title) else {
            told.push_str(&format!("section is gone: {title}\n"));
            continue;
        };
        let (_, after) = now.remove(at);
        if *before == after {
            continue;
        }
        told.push_str(&format!("=== {title}\n"));
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        for line in before.iter().filter(|line| !after.contains(line)).take(20) {
            told.push_str(&format!("- {line}\n"));
        }
        for line in after.iter().filter(|line| !before.contains(line)).take(20) {
            told.push_str(&format!("+ {line}\n"));
        }
    }
    for (title, _) in now {
        told.push_str(&format!("section is new: {title}\n"));
    }
    told
}

fn sections(text: &str) -> Vec<(String, String)> {
    text.split("=== ")
        .skip(1)
        .map(|part| {
            let (title, rest) = part.split_once('\n').unwrap_or((part, ""));
            (title.to_owned(), rest.to_owned())
        })
        .collect()
}

/// Fails with every difference of these snapshots.
fn compare(snapshots: &[Snapshot]) {
    let told: Vec<String> = snapshots.iter().filter_map(Snapshot::judge).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn every_help_is_as_it_was() {
    compare(&[commands::helps()]);
}

#[test]
fn what_commands_print_without_a_gateway_is_as_it_was() {
    compare(&[commands::alone()]);
}

#[tokio::test]
async fn every_answer_every_command_every_metric_and_every_log_line_is_as_it_was() {
    let story = Story::play().await;
    let admin = answers::all(&story).await;
    let cli = commands::all(&story).await;
    let metrics = answers::metrics(&story).await;
    let log = answers::log_lines(&story);
    compare(&[admin, cli, metrics, log]);
}

#[test]
fn a_difference_names_its_section_and_the_lines() {
    let told = difference(
        "x.txt",
        "=== a\none\ntwo\n=== b\nsame\n=== c\n",
        "=== a\none\nthree\n=== b\nsame\n=== d\n",
    );
    assert_eq!(
        told,
        "x.txt differs from tests/snapshots/x.txt:\n=== a\n- two\n+ three\nsection is gone: c\nsection is new: d\n"
    );
}

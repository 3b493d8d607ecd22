//! A configuration that is read again while the gateway runs: when its file, or a file of secrets, has changed, at
//! SIGHUP, and at an operator's word.
//!
//! What is being written is left alone: a change counts when two looks in a row find the same. One that says less than
//! the one before, as a file does that was cut, has to stay so for longer; one without any source where there were some
//! is taken at an order alone, and one that says nothing is never taken.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::gateway::{GatewayArgs, NOT_FOUND};
use super::sheet::sheets;
use super::{print, tally, usage};
use crate::admin::{Loaded, ReloadAnswer, ReloadOrder};
use crate::app::{self, NextConfig};
use crate::config::{Config, Problem, Problems, Table, Value, Weight, unit};
use crate::model::Clock;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Time that a change has to stay as it is.
const SETTLE: Duration = Duration::from_millis(300);

/// The same, for one that says less than before.
const SETTLE_CUT: Duration = Duration::from_secs(10);

/// Time that an order waits between two looks at a file that goes on changing.
const SETTLE_ORDER: Duration = Duration::from_millis(100);

/// Most looks that an order takes until two are the same.
const MOST_LOOKS: usize = 50;

/// Most problems in an answer.
const MOST_TOLD: usize = 20;

/// Digest of the files; `None` while the configuration itself is missing.
type Print = Option<[u8; 32]>;

/// Reads the configuration again whenever it has to be.
pub(super) struct Watch {
    file: PathBuf,
    /// The configuration in force: its files, its text, the names of its sources, and the state of the drop-in.
    files: Vec<PathBuf>,
    text: String,
    sources: BTreeSet<String>,
    /// Digest of the files that were dealt with last.
    seen: Print,
}

/// The same, with whom to tell.
pub(super) struct WatchRun {
    loaded: Arc<Loaded>,
    clock: Clock,
    reloads: mpsc::Sender<NextConfig>,
    watch: Watch,
}

impl Watch {
    /// A watch over the file that `config` was read from; `text` is what it said just before.
    pub(super) fn new(file: &Path, config: &Config, text: String) -> Self {
        let files = config.files.clone();
        let mut watch = Self {
            file: file.to_owned(),
            files,
            text,
            sources: names(config),
            seen: None,
        };
        watch.dealt_with();
        watch
    }

    /// Notes that the files as they are now have been dealt with. A file that was written while it was read is looked
    /// at again.
    fn dealt_with(&mut self) {
        let is_same = whole(&self.file).is_some_and(|text| text == self.text);
        self.seen = if is_same { self.print() } else { None };
    }

    /// The same, for a gateway that can be told.
    pub(super) fn over(self, loaded: Arc<Loaded>, reloads: mpsc::Sender<NextConfig>) -> WatchRun {
        WatchRun {
            loaded,
            clock: Clock::system(),
            reloads,
            watch: self,
        }
    }
}

impl WatchRun {
    /// Watches until the gateway is gone.
    pub(super) async fn run(mut self, mut hangup: Signal, mut orders: mpsc::Receiver<ReloadOrder>) {
        loop {
            let order = tokio::select! {
                _ = hangup.recv() => Some(None),
                Some(order) = orders.recv() => Some(Some(order)),
                () = tokio::time::sleep(LOOK) => None,
            };
            let goes_on = match order {
                Some(order) => self.ordered(order).await,
                None => self.changed().await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// An order: what is there is read as soon as it stays the same.
    async fn ordered(&mut self, order: Option<ReloadOrder>) -> bool {
        let mut last = self.watch.print();
        for _ in 0..MOST_LOOKS {
            tokio::time::sleep(SETTLE_ORDER).await;
            let now = self.watch.print();
            if now == last {
                break;
            }
            last = now;
        }
        self.watch.seen = last;
        if !self.watch.file.is_file() {
            let why = format!(
                "{} is no file that could be read again",
                self.watch.file.display()
            );
            return self.refuse(vec![why], order);
        }
        let text = whole(&self.watch.file).unwrap_or_default();
        if says_nothing(&text) && !self.watch.text.trim().is_empty() {
            let why = format!(
                "{} says nothing, and the configuration that holds stays",
                self.watch.file.display()
            );
            return self.refuse(vec![why], order);
        }
        self.read(text, order).await
    }

    /// A look at the files. What has changed is read when it stays as it is.
    async fn changed(&mut self) -> bool {
        let now = self.watch.print();
        // A file that is gone is being replaced.
        if now.is_none() || now == self.watch.seen {
            return true;
        }
        tokio::time::sleep(SETTLE).await;
        if self.watch.print() != now {
            return true;
        }
        let text = whole(&self.watch.file).unwrap_or_default();
        let file = self.watch.file.display().to_string();
        if says_nothing(&text) && !says_nothing(&self.watch.text) {
            self.watch.seen = now;
            return self.refuse(
                vec![format!(
                    "{file} says nothing, and the configuration that holds stays"
                )],
                None,
            );
        }
        let sources = sources_of(&text);
        if !self.watch.sources.is_empty() && sources.as_ref().is_some_and(BTreeSet::is_empty) {
            self.watch.seen = now;
            let why = format!(
                "{file} has no source any more, and the configuration that holds stays; \
                 if it is meant: sluicegate reload, or SIGHUP"
            );
            return self.refuse(vec![why], None);
        }
        let is_less = sources.is_none_or(|sources| !self.watch.sources.is_subset(&sources));
        let is_cut =
            self.watch.text.len() > text.len() && self.watch.text.starts_with(text.as_str());
        if is_less || is_cut {
            tracing::warn!(
                file,
                wait_s = SETTLE_CUT.as_secs(),
                "the configuration says less than before, as if it were being written: it is read if it stays so"
            );
            let began = tokio::time::Instant::now();
            while began.elapsed() < SETTLE_CUT {
                tokio::time::sleep(SETTLE).await;
                if self.watch.print() != now {
                    return true;
                }
            }
        }
        self.watch.seen = now;
        self.read(text, None).await
    }

    /// Compiles what is there and hands it over. False: the gateway is gone.
    async fn read(&mut self, text: String, order: Option<ReloadOrder>) -> bool {
        let problems = Problems::default();
        let compiled = app::compile(&self.watch.file, &problems);
        let problems = problems.into_sorted();
        for Problem {
            weight,
            place,
            what,
            hint,
        } in &problems
        {
            match weight {
                Weight::Error => tracing::error!(%place, hint, "{what}"),
                Weight::Warning => tracing::warn!(%place, hint, "{what}"),
            }
        }
        let Some((config, sources)) = compiled else {
            let errors = problems
                .iter()
                .filter(|problem| problem.weight == Weight::Error);
            let mut told: Vec<String> = errors
                .take(MOST_TOLD)
                .map(|problem| format!("{}: {}", problem.place, problem.what))
                .collect();
            told.push(format!(
                "{}; sluicegate check names them all",
                tally(&problems)
            ));
            return self.refuse(told, order);
        };
        let (files, names) = (config.files.clone(), names(&config));
        let (done, told) = oneshot::channel();
        if self
            .reloads
            .send(NextConfig {
                config,
                sources,
                done,
            })
            .await
            .is_err()
        {
            return false;
        }
        match told.await {
            Ok(Ok(())) => {
                (self.watch.files, self.watch.text, self.watch.sources) = (files, text, names);
                // The files of the new one may be others.
                self.watch.dealt_with();
                answer(order, ReloadAnswer::Taken);
                true
            }
            Ok(Err(why)) => self.refuse(vec![why], order),
            Err(_) => false,
        }
    }

    /// Refuses the configuration in the files.
    fn refuse(&self, why: Vec<String>, order: Option<ReloadOrder>) -> bool {
        let first = why.first().cloned().unwrap_or_default();
        tracing::error!(
            cause = first,
            "configuration not reloaded, the old one stays"
        );
        self.loaded.refuse(self.clock.now(), first);
        answer(order, ReloadAnswer::Refused(why));
        true
    }
}

impl Watch {
    fn print(&self) -> Print {
        let mut digest = Sha256::new_with_prefix(whole(&self.file)?);
        for file in &self.files {
            digest.update([0]);
            // A folder, a pipe and a device are no files to read here.
            if file.is_file() {
                digest.update(std::fs::read(file).unwrap_or_default());
            }
        }
        Some(digest.finalize().into())
    }
}

/// The sources that a text has, whatever else is wrong with it; none where it cannot be read at all.
fn sources_of(text: &str) -> Option<BTreeSet<String>> {
    let problems = Problems::default();
    let table = Table::parse("t", text, &problems);
    if problems.any_error() {
        return None;
    }
    Some(match table.get("sources").map(|node| &node.value) {
        Some(Value::Table(sources)) => sources
            .entries
            .iter()
            .map(|(name, ..)| name.clone())
            .collect(),
        _ => BTreeSet::new(),
    })
}

/// The text of a file. A pipe is not read here: it can be read only once, when the configuration is compiled.
pub(super) fn whole(file: &Path) -> Option<String> {
    // What is no UTF-8 is a change as well, of which the compiler says what is wrong.
    let bytes = if file.is_file() {
        std::fs::read(file).ok()
    } else {
        None
    };
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn names(config: &Config) -> BTreeSet<String> {
    config
        .sources
        .iter()
        .map(|source| source.name.clone())
        .collect()
}

/// True if a file has nothing but blanks and comments in it.
fn says_nothing(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

fn answer(order: Option<ReloadOrder>, with: ReloadAnswer) {
    if let Some(order) = order {
        // Whoever gave it may have left.
        let _ = order.send(with);
    }
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Wait until the configuration holds, which is what it does anyway; so long at most
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "30s", default_value = "30s")]
    wait: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Has a running gateway read its configuration again, and says which one holds.
pub(super) async fn run(reload: Reload) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(reload.gateway.times);
    let wait = unit::duration(&reload.wait).ok_or_else(|| {
        usage(format!(
            "--wait cannot be \"{}\"; write for example 30s",
            print::line(&reload.wait)
        ))
    })?;
    let asked = reload
        .gateway
        .find()?
        .tell_within("/reload", &json!({}), wait)
        .await?;
    let Some(answer) = asked.or_say(&mut talk, "reload") else {
        return Ok(NOT_FOUND.into());
    };
    if reload.json {
        print::json(&mut out, &answer)?;
    } else {
        print::reloaded(&mut out, &answer)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_a_file_with_comments_alone_says_nothing() {
        assert!(
            says_nothing("") && says_nothing("\n  \n# [server]\n") && !says_nothing("[server]\n")
        );
    }
}

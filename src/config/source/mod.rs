//! A `[sources.NAME]` table as written.

mod choice;
mod queue;
mod run_fields;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::attachment::SourceFiles;
use super::node::{Table, Value};
use super::problem::{Located, Place, Problems};
use super::provider::Map;
use super::reconcile::ReconcileConfig;
use super::reply::SourceReply;
use super::secret::Secret;
use super::section::Section;
use super::unit::Rate;
use super::{KeepConfig, size};
use crate::model::{
    Backlog, Block, CertificatePattern, Class, Destination, DestinationKind, Overlap, is_agent_id,
};

use choice::{event_json, on_unknown, on_unmappable, query, respond, run_mode, task_id_form};
use queue::{backlog, overlap, weight};

pub use choice::{EventJson, OnUnknown, OnUnmappable, QueryUse, Respond, RunMode, TaskIdForm};
pub(super) use queue::class;
pub use run_fields::RunFields;

/// One configured way in.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name, and the last part of its path `/hooks/{name}`.
    pub name: String,
    /// Place of its table.
    pub place: Place,
    /// The provider, or `custom`.
    pub provider: Located<String>,
    /// The addresses it may be called from; empty lets all call.
    pub allow: Vec<Block>,
    /// The client certificates that its callers may show; empty asks for none.
    pub client_certs: Vec<Located<CertificatePattern>>,
    /// The secrets, all live at once.
    pub secrets: Vec<Located<Secret>>,
    /// True if a misspelled key for `secrets` was reported already.
    pub misspelt_secrets: bool,
    /// File of the secrets that the provider's handshake brings, one in a line; they are in `secrets` as well.
    pub enrol_file: Option<PathBuf>,
    /// Time for which the proof of a request counts as used, if the source sets it.
    pub replay_window: Option<ReplayWindow>,
    /// True if a request without proof of origin is refused; else it passes, and the fault is recorded.
    pub enforce: bool,
    /// An inline `verify` table, which takes the place of the provider's.
    pub verify: Option<Table>,
    /// The operator's values for `{config:name}`.
    pub values: Vec<(Located<String>, Located<String>)>,
    /// Destination of its events.
    pub destination: Option<Destination>,
    /// Event types that are kept; an empty list keeps all.
    pub events: Vec<Located<String>>,
    /// Event types that are not kept.
    pub not_events: Vec<Located<String>>,
    /// Whose events are not kept.
    pub not_senders: Vec<Located<String>>,
    /// Paths to the sender of an event, if the source sets them.
    pub sender: Vec<Located<String>>,
    /// An expression that must hold for an event to be kept.
    pub when: Option<Located<String>>,
    /// True if only events of humans run an agent, where the provider's file can tell them.
    pub humans_only: bool,
    /// `params_mapping`, `each`, `thread` and `prompt`.
    pub map: Map,
    /// Values for parameters that nothing overrules.
    pub fixed: Vec<(Located<String>, Located<String>)>,
    /// Rule for parameters of the query.
    pub query: QueryUse,
    /// True if fields of the body with the names of parameters are parameters, if the source sets it.
    pub implicit: Option<bool>,
    /// Values for parameters that nothing else gives.
    pub defaults: Vec<(Located<String>, Located<String>)>,
    /// Place for the event's JSON beside a prompt.
    pub event_json: EventJson,
    /// True if a missing value in a template is refused; else it prints nothing.
    pub strict_template: bool,
    /// Rule for ids of threads: the given id, or a UUID.
    pub task_id_form: TaskIdForm,
    /// The address made for a user who has only an id; `{id}` stands for it.
    pub user_email_template: String,
    /// Fields of the invoke body that the operator sets for every run, in order.
    pub run: RunFields,
    /// Way to start a run.
    pub run_mode: RunMode,
    /// Answer to a caller.
    pub respond: Respond,
    /// Time for which a caller waits with [`Respond::Wait`], if the source sets it.
    pub wait_timeout: Option<Duration>,
    /// The path of the task object that a caller gets; the whole object where nothing is said.
    pub getter: Option<Located<String>>,
    /// True if the run's result is parsed as JSON in the answer to a caller.
    pub json: bool,
    /// Rule for an event whose thread has a turn that waits or runs.
    pub overlap: Overlap,
    /// Class of its events.
    pub class: Class,
    /// Weight against the other sources of its class.
    pub weight: u32,
    /// Backlog of waiting deliveries, by number and age, from which new events are refused.
    pub backlog: Option<Backlog>,
    /// Most of its deliveries in flight.
    pub concurrency: Option<usize>,
    /// Most runs a day.
    pub runs_per_day: Option<u64>,
    /// Time for which its finished events are kept, if the source sets it.
    pub keep: KeepConfig,
    /// Rule for a delivery with an unknown end.
    pub on_unknown: OnUnknown,
    /// Rule for a proved event that cannot be mapped.
    pub on_unmappable: OnUnmappable,
    /// True if a failed run is repeated.
    pub retry_failed_runs: bool,
    /// Rules for files; absent if the source takes no files.
    pub files: Option<SourceFiles>,
    /// The largest body.
    pub max_body: Option<u64>,
    /// Rate of calls.
    pub rate: Option<Rate>,
    /// Rate of turns of one thread.
    pub thread_rate: Option<Rate>,
    /// Settings for reading the provider's log.
    pub reconcile: Option<ReconcileConfig>,
    /// Settings for answers that go back to the chat; absent if none do.
    pub reply: Option<SourceReply>,
}

/// Time for which the proof of a request counts as used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayWindow {
    /// As long as its event is kept.
    Kept,
    /// So long; not at all where that is nothing.
    Lasts(Duration),
}

impl ReplayWindow {
    /// Where neither the source nor its provider says that no two of its requests are alike.
    pub const USUAL: Self = Self::Lasts(Duration::from_secs(600));
}

impl SourceConfig {
    /// Reads one source. `base` is the folder that relative paths start from.
    pub fn read(
        name: &str,
        section: &Section<'_>,
        base: &Path,
        providers: &BTreeMap<String, Arc<super::Provider>>,
    ) -> Self {
        let (provider, named) = provider(section, providers);
        let (secrets, enrol_file) = secrets(section, base);
        let respond = respond(section);
        Self {
            name: name.to_owned(),
            place: section.place().clone(),
            provider,
            allow: section.blocks("allow").unwrap_or_default(),
            client_certs: section.certificate_patterns("client_certs"),
            secrets,
            misspelt_secrets: section.is_misspelt("secrets"),
            enrol_file,
            replay_window: replay_window(section),
            enforce: enforce(name, section),
            verify: section.section("verify").map(Section::into_table),
            values: section.text_table("values").unwrap_or_default(),
            destination: destination(section),
            events: section.texts("events").unwrap_or_default(),
            not_events: section.texts("not_events").unwrap_or_default(),
            not_senders: section.texts("not_senders").unwrap_or_default(),
            sender: section.one_or_more("sender"),
            when: section.text("when"),
            humans_only: section
                .bool("humans_only")
                .is_none_or(|humans_only| humans_only.value),
            map: Map::read(section),
            fixed: section.text_table("fixed").unwrap_or_default(),
            query: query(section),
            implicit: section.bool("implicit").map(|implicit| implicit.value),
            defaults: section.text_table("defaults").unwrap_or_default(),
            event_json: event_json(section),
            strict_template: section.bool("strict_template").is_none_or(|b| b.value),
            task_id_form: task_id_form(section),
            user_email_template: user_email_template(section),
            run: RunFields::read(section),
            run_mode: run_mode(section),
            respond,
            wait_timeout: section.duration("wait_timeout").map(|d| d.value),
            getter: section.text("getter").filter(|getter| !getter.is_empty()),
            json: section.bool("json").is_some_and(|b| b.value),
            overlap: overlap(section),
            class: class(section)
                .or(named.and_then(|provider| provider.class))
                .unwrap_or(match respond {
                    Respond::Ack => Class::Normal,
                    Respond::Wait | Respond::Proxy | Respond::Stream => Class::Interactive,
                }),
            weight: weight(section),
            backlog: backlog(section),
            concurrency: size(section, "concurrency"),
            runs_per_day: size(section, "runs_per_day").map(|most| most as u64),
            keep: KeepConfig::read(section),
            on_unknown: on_unknown(section),
            on_unmappable: on_unmappable(section),
            retry_failed_runs: section.bool("retry_failed_runs").is_some_and(|b| b.value),
            files: SourceFiles::read(section, base),
            max_body: section.bytes("max_body").map(|b| b.value),
            rate: section.rate("rate").map(|r| r.value),
            thread_rate: section.rate("thread_rate").map(|r| r.value),
            reply: SourceReply::read(section, base),
            reconcile: section
                .section("reconcile")
                .map(|log| ReconcileConfig::read(&log, base)),
        }
    }
}

/// The provider by its name or an alias, and its file. From here on it has the name of its file.
fn provider<'p>(
    section: &Section<'_>,
    providers: &'p BTreeMap<String, Arc<super::Provider>>,
) -> (Located<String>, Option<&'p Arc<super::Provider>>) {
    let hint = "name one of `sluicegate provider list`, or \"custom\" with a verify table";
    let written = section
        .required_text("provider", hint)
        .unwrap_or_else(|| Located {
            value: String::new(),
            place: section.place().clone(),
        });
    let named = super::provider::find_provider(providers, &written.value);
    let provider = Located {
        value: named.map_or(written.value, |known| known.name.clone()),
        place: written.place,
    };
    (provider, named)
}

/// The secrets, and the file of those that the provider's handshake brings.
fn secrets(section: &Section<'_>, base: &Path) -> (Vec<Located<Secret>>, Option<PathBuf>) {
    let problems = section.problems();
    let enrol_file = section
        .text("enrol_file")
        .map(|file| file.map(|file| base.join(file)));
    let mut secrets = section.dated_secrets("secrets", base).unwrap_or_default();
    if let (Some(dated), Some(_)) = (
        secrets.iter().find(|secret| secret.until().is_some()),
        &enrol_file,
    ) {
        problems.error_hint(
            &dated.place,
            format!(
                "{} has enrol_file, where secrets come and go by themselves, and a secret with an end",
                section.name()
            ),
            "leave until out",
        );
    }
    if let Some(file) = &enrol_file {
        secrets.extend(enrolled(file, problems));
    }
    (secrets, enrol_file.map(|file| file.value))
}

/// False if a request that nothing proves is let in, which is reported.
fn enforce(name: &str, section: &Section<'_>) -> bool {
    let Some(enforce) = section.bool("enforce") else {
        return true;
    };
    if !enforce.value {
        section.problems().warn(
            &enforce.place,
            format!("source {name} lets in whoever calls: enforce is false"),
            "only to see what would be refused before a provider's setup is complete",
        );
    }
    enforce.value
}

/// The secrets that a handshake has brought. A file that is not there yet has none.
fn enrolled(file: &Located<PathBuf>, problems: &Problems) -> Vec<Located<Secret>> {
    let text = match std::fs::read_to_string(&file.value) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.error_hint(
                &file.place,
                format!("the file {} cannot be read: {error}", file.value.display()),
                "it keeps the secrets that the provider's handshake brought; the gateway has to read and write it",
            );
            return Vec::new();
        }
    };
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .enumerate();
    lines
        .map(|(number, line)| Located {
            value: Secret::new(format!("enrolled {}", number + 1), line),
            place: file.place.clone(),
        })
        .collect()
}

fn user_email_template(section: &Section<'_>) -> String {
    let Some(text) = section.text("user_email_template") else {
        return "{id}@webhook.invalid".to_owned();
    };
    if !text.contains("{id}") {
        section.problems().error_hint(
            &text.place,
            "user_email_template has no {id}",
            "write for example \"{id}@webhook.invalid\"",
        );
    }
    text.value
}

fn replay_window(section: &Section<'_>) -> Option<ReplayWindow> {
    if section
        .node("replay_window")
        .is_some_and(|node| matches!(&node.value, Value::Text(text) if text == "kept"))
    {
        return Some(ReplayWindow::Kept);
    }
    section
        .duration("replay_window")
        .map(|window| ReplayWindow::Lasts(window.value))
}

fn destination(section: &Section<'_>) -> Option<Destination> {
    let written = [
        (DestinationKind::Agent, "agent"),
        (DestinationKind::Workflow, "workflow"),
    ]
    .map(|(kind, key)| section.text(key).map(|id| (kind, id)));
    match written {
        [Some((kind, id)), None] | [None, Some((kind, id))] => {
            if !is_agent_id(&id.value) {
                // Of an address that was copied whole, the id is the part that looks like one.
                let part = id
                    .value
                    .split(['/', '?', '#'])
                    .find(|part| part.len() == 36 && is_agent_id(part));
                let hint = match part {
                    Some(part) => format!("did you mean {part}?"),
                    None => {
                        "copy the id from the platform's address bar: 1 to 64 letters, digits, '-' and '_'".to_owned()
                    }
                };
                section.problems().error_hint(
                    &id.place,
                    "this is no id of an agent or workflow",
                    hint,
                );
                return None;
            }
            Some(Destination { kind, id: id.value })
        }
        [Some(_), Some((_, workflow))] => {
            section.problems().error_hint(
                &workflow.place,
                format!("{} names an agent and a workflow", section.name()),
                "a source has one destination: remove one of the two",
            );
            None
        }
        [None, None] => {
            let is_meant = section.is_misspelt("agent") || section.is_misspelt("workflow");
            if !section.has("agent") && !section.has("workflow") && !is_meant {
                section.problems().error_hint(
                    section.place(),
                    format!("{} has no destination", section.name()),
                    "set agent = \"…\" or workflow = \"…\"",
                );
            }
            None
        }
    }
}

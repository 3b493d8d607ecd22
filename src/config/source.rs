//! A `[sources.NAME]` table as written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::attachment::SourceFiles;
use super::node::{Node, Table, Value};
use super::problem::{Located, Place, Problems};
use super::provider::Map;
use super::reconcile::ReconcileConfig;
use super::secret::Secret;
use super::section::Section;
use super::unit::Rate;
use super::{KeepConfig, size};
use crate::model::{
    Backlog, Block, CertificatePattern, Class, Destination, DestinationKind, Overlap, OverlapMode,
    is_agent_id,
};

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
}

/// Rule for parameters of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryUse {
    /// All.
    Allow,
    /// Those that the operator sealed.
    Sealed,
    /// None.
    Ignore,
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

/// Place for the event's JSON beside a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventJson {
    /// Below a prompt that says nothing of the event (from the query, the body's own field or a default), fenced.
    Auto,
    /// Below every prompt, fenced.
    Text,
    /// Into `additional_context`, which weighs as much as the operator's own words.
    Context,
    /// Nowhere.
    None,
}

/// Rule for the id of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskIdForm {
    /// A UUIDv5 over source, destination and conversation.
    Uuid,
    /// As it was given.
    AsGiven,
}

/// Way to start a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunMode {
    /// One request that ends when the run does.
    #[default]
    Call,
    /// Started, then asked for at growing intervals.
    Async,
    /// One request whose answer tells of the run as it goes.
    Stream,
}

/// Answer to a caller of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Respond {
    /// An acknowledgement, once the event is kept.
    Ack,
    /// The run's end, if it comes in time; the event is kept before the wait begins.
    Wait,
    /// The upstream's answer; nothing is kept.
    Proxy,
    /// The upstream's stream; nothing is kept.
    Stream,
}

/// Rule for a delivery with an unknown end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// Keep it for an operator.
    Hold,
    /// Run it again.
    Retry,
}

/// Rule for a proved event that cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnmappable {
    /// It is acknowledged and kept, for an operator who mends the mapping and replays it.
    Keep,
    /// Its sender is told, and nothing is kept.
    Refuse,
}

/// Settings of the operator for every run of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFields {
    /// `?version=`
    pub version: Option<String>,
    /// Fields of the body, by their upstream names, in the order of the upstream's documentation.
    pub fields: Vec<(&'static str, serde_json::Value)>,
    /// Time limit for one blocking call.
    pub timeout: Option<Duration>,
}

impl SourceConfig {
    /// Reads one source. `base` is the folder that relative paths start from.
    pub fn read(
        name: &str,
        section: &Section<'_>,
        base: &Path,
        providers: &BTreeMap<String, Arc<super::Provider>>,
    ) -> Self {
        let problems = section.problems();
        let provider = section
            .required_text(
                "provider",
                "name one of `sluicegate provider list`, or \"custom\" with a verify table",
            )
            .unwrap_or_else(|| Located {
                value: String::new(),
                place: section.place().clone(),
            });
        // From here on it has the name of its file, also where an alias was written.
        let named = super::provider::find_provider(providers, &provider.value);
        let provider = Located {
            value: named.map_or(provider.value, |known| known.name.clone()),
            ..provider
        };
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
        let of_provider = named.and_then(|provider| provider.class);
        let respond = respond(section);
        let enforce = section.bool("enforce");
        if let Some(enforce) = enforce.as_ref().filter(|enforce| !enforce.value) {
            problems.warn(
                &enforce.place,
                format!("source {name} lets in whoever calls: enforce is false"),
                "only to see what would be refused before a provider's setup is complete",
            );
        }
        Self {
            name: name.to_owned(),
            place: section.place().clone(),
            provider,
            allow: section.blocks("allow").unwrap_or_default(),
            client_certs: section.certificate_patterns("client_certs"),
            secrets,
            misspelt_secrets: section.is_misspelt("secrets"),
            enrol_file: enrol_file.map(|file| file.value),
            replay_window: replay_window(section),
            enforce: enforce.is_none_or(|enforce| enforce.value),
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
            query: section
                .one_of(
                    "query",
                    &[
                        ("allow", QueryUse::Allow),
                        ("sealed", QueryUse::Sealed),
                        ("ignore", QueryUse::Ignore),
                    ],
                )
                .map_or(QueryUse::Allow, |query| query.value),
            implicit: section.bool("implicit").map(|implicit| implicit.value),
            defaults: section.text_table("defaults").unwrap_or_default(),
            event_json: section
                .one_of(
                    "event_json",
                    &[
                        ("auto", EventJson::Auto),
                        ("text", EventJson::Text),
                        ("context", EventJson::Context),
                        ("none", EventJson::None),
                    ],
                )
                .map_or(EventJson::Auto, |e| e.value),
            strict_template: section.bool("strict_template").is_none_or(|b| b.value),
            task_id_form: section
                .one_of(
                    "task_id_form",
                    &[
                        ("uuid", TaskIdForm::Uuid),
                        ("as-given", TaskIdForm::AsGiven),
                    ],
                )
                .map_or(TaskIdForm::Uuid, |t| t.value),
            user_email_template: section
                .text("user_email_template")
                .map(|text| {
                    if !text.contains("{id}") {
                        problems.error_hint(
                            &text.place,
                            "user_email_template has no {id}",
                            "write for example \"{id}@webhook.invalid\"",
                        );
                    }
                    text.value
                })
                .unwrap_or_else(|| "{id}@webhook.invalid".to_owned()),
            run: RunFields::read(section),
            run_mode: section
                .one_of(
                    "run",
                    &[
                        ("call", RunMode::Call),
                        ("async", RunMode::Async),
                        ("stream", RunMode::Stream),
                    ],
                )
                .map_or(RunMode::Call, |r| r.value),
            respond,
            wait_timeout: section.duration("wait_timeout").map(|d| d.value),
            getter: section.text("getter").filter(|getter| !getter.is_empty()),
            json: section.bool("json").is_some_and(|b| b.value),
            overlap: overlap(section),
            class: class(section).or(of_provider).unwrap_or(match respond {
                Respond::Ack => Class::Normal,
                Respond::Wait | Respond::Proxy | Respond::Stream => Class::Interactive,
            }),
            weight: weight(section),
            backlog: backlog(section),
            concurrency: size(section, "concurrency"),
            runs_per_day: size(section, "runs_per_day").map(|most| most as u64),
            keep: KeepConfig::read(section),
            on_unknown: section
                .one_of(
                    "on_unknown",
                    &[("hold", OnUnknown::Hold), ("retry", OnUnknown::Retry)],
                )
                .map_or(OnUnknown::Hold, |o| o.value),
            on_unmappable: section
                .one_of(
                    "on_unmappable",
                    &[
                        ("keep", OnUnmappable::Keep),
                        ("refuse", OnUnmappable::Refuse),
                    ],
                )
                .map_or(OnUnmappable::Keep, |o| o.value),
            retry_failed_runs: section.bool("retry_failed_runs").is_some_and(|b| b.value),
            files: SourceFiles::read(section, base),
            max_body: section.bytes("max_body").map(|b| b.value),
            rate: section.rate("rate").map(|r| r.value),
            thread_rate: section.rate("thread_rate").map(|r| r.value),
            reconcile: section
                .section("reconcile")
                .map(|log| ReconcileConfig::read(&log, base)),
        }
    }
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

/// `class`, of a source or of a provider.
pub(super) fn class(section: &Section<'_>) -> Option<Class> {
    section
        .one_of("class", &Class::ALL.map(|class| (class.as_str(), class)))
        .map(|class| class.value)
}

/// The largest weight: enough to tell sources apart, and not so much that one has nothing.
const MOST_WEIGHT: usize = 100;

fn weight(section: &Section<'_>) -> u32 {
    let Some(weight) = size(section, "weight") else {
        return 1;
    };
    if weight > MOST_WEIGHT
        && let Some(node) = section.node("weight")
    {
        let most = format!("{} must be at most {MOST_WEIGHT}", section.path("weight"));
        section.problems().error(&node.place, most);
    }
    u32::try_from(weight.min(MOST_WEIGHT)).unwrap_or(1)
}

fn backlog(section: &Section<'_>) -> Option<Backlog> {
    let most = size(section, "max_waiting").map(|most| most as u64);
    let age = section.duration("max_lag").map(|age| age.value);
    (most.is_some() || age.is_some()).then_some(Backlog {
        most,
        age,
        turns_away: true,
    })
}

fn overlap(section: &Section<'_>) -> Overlap {
    let modes = [
        ("queue", OverlapMode::Queue),
        ("collect", OverlapMode::Collect),
        ("latest", OverlapMode::Latest),
        ("reject", OverlapMode::Reject),
    ];
    let mode = section
        .one_of("overlap", &modes)
        .map_or(OverlapMode::Queue, |mode| mode.value);
    let depth = size(section, "overlap_depth");
    let age = section.duration("overlap_age");
    if matches!(mode, OverlapMode::Latest | OverlapMode::Reject)
        && let Some(depth) = section.node("overlap_depth")
    {
        section.problems().error_hint(
            &depth.place,
            "overlap_depth says nothing here: with this overlap none or one event waits",
            "it is for overlap = \"queue\" and \"collect\"",
        );
    }
    Overlap {
        mode,
        depth: depth.map(|depth| u32::try_from(depth).unwrap_or(u32::MAX)),
        age: age.map(|age| age.value),
    }
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

fn respond(section: &Section<'_>) -> Respond {
    let words = [
        ("ack", Respond::Ack),
        ("wait", Respond::Wait),
        ("proxy", Respond::Proxy),
        ("stream", Respond::Stream),
    ];
    let Some(respond) = section.one_of("respond", &words) else {
        return Respond::Ack;
    };
    if matches!(respond.value, Respond::Proxy | Respond::Stream) {
        section.problems().warn(
            &respond.place,
            format!(
                "{} keeps no events: an event that is sent anew runs again, and none is tried again",
                section.name()
            ),
            "respond = \"wait\" keeps each event and still answers with the run's end",
        );
    }
    respond.value
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

impl RunFields {
    fn read(section: &Section<'_>) -> Self {
        let mut fields = Vec::new();
        for key in ["title", "instructions_override", "expected_output"] {
            if let Some(text) = section.text(key) {
                fields.push((key, text.value.into()));
            }
        }
        let words = |key: &'static str, words: &[(&str, &'static str)], fields: &mut Vec<_>| {
            if let Some(word) = section.one_of(key, words) {
                fields.push((key, serde_json::Value::from(word.value)));
            }
        };
        words(
            "output_format",
            &[
                ("text", "text"),
                ("markdown", "markdown"),
                ("json", "json"),
                ("voice", "voice"),
            ],
            &mut fields,
        );
        if let Some(node) = section.node("output_schema") {
            match json(node) {
                Some(schema @ serde_json::Value::Object(_)) => {
                    fields.push(("output_schema", schema))
                }
                _ => section.problems().error_hint(
                    &node.place,
                    "output_schema must be a table or a text that holds a JSON object",
                    "it is a JSON Schema, for example { type = \"object\" }",
                ),
            }
        }
        words(
            "think_mode",
            &[("default", "default"), ("harder", "harder")],
            &mut fields,
        );
        if let Some(yes) = section.bool("disable_attachment_injection") {
            fields.push(("disable_attachment_injection", yes.value.into()));
        }
        for key in ["llm_model_provider", "llm_model_name"] {
            if let Some(text) = section.text(key) {
                fields.push((key, text.value.into()));
            }
        }
        words(
            "llm_reasoning_effort",
            &[
                ("low", "low"),
                ("medium", "medium"),
                ("high", "high"),
                ("xhigh", "xhigh"),
            ],
            &mut fields,
        );
        Self {
            version: section.text("version").map(|v| v.value),
            fields,
            timeout: section.duration("run_timeout").map(|d| d.value),
        }
    }
}

/// A TOML value as JSON; a text is read as JSON where it is an object.
fn json(node: &Node) -> Option<serde_json::Value> {
    Some(match &node.value {
        Value::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Time(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        Value::Table(table) => table
            .entries
            .iter()
            .map(|(key, _, node)| Some((key.clone(), json(node)?)))
            .collect::<Option<serde_json::Map<_, _>>>()?
            .into(),
    })
}

//! A delivery as a request to the upstream. Pure, so that a retry sends the same bytes.
//!
//! Text from a caller reaches the agent as its message and nowhere else: never as a field of the call, and as part of
//! the system prompt (`additional_context`) only where the operator says so with `event_json = "context"`. Names of
//! people and of files count as text from a caller. Below a prompt such text stands in a fence ([`super::fence`]).

use std::borrow::Cow;
use std::time::Duration;

use super::body::{CallInput, InvokeBody};
use super::collected::{self, CollectedMessage};
use super::fence::{EVENT, NAMES, around_names};
use super::missing_file::MissingFile;
use super::path;
use super::text::{EventParts, prompt};
use super::user::{User, UserDetails};
use crate::config::{RunMode, Secret, SourceConfig};
use crate::inbox::{Claimed, EventDetail};
use crate::model::{
    DeliveryId, Destination, DestinationKind, EventId, Marks, NewDelivery, NewEvent, Timestamp,
};

/// One call of an agent or a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The path and the query, below the base URL.
    pub path: String,
    /// The body; a structure until the call is sent or sealed.
    pub body: InvokeBody,
    /// The time it may take, where the source sets one.
    pub timeout: Option<Duration>,
    /// The key it is sent with; without one, the configured key is used.
    pub key: Option<Secret>,
    /// The mode of its run, which the path contains as well.
    pub run: RunMode,
}

/// The parts of an event and of a delivery that a call is made of.
#[derive(Clone, Copy, Debug)]
struct CallSource<'a> {
    event: EventId,
    destination: &'a Destination,
    upstream_id: &'a str,
    parts: EventParts<'a>,
}

impl<'a> CallSource<'a> {
    /// The parts of a claimed delivery.
    fn of_claimed(claimed: &'a Claimed) -> Self {
        Self {
            event: claimed.id.event,
            destination: &claimed.destination,
            upstream_id: &claimed.upstream_id,
            parts: EventParts {
                params: &claimed.params,
                headers: &claimed.headers,
                body: &claimed.body,
            },
        }
    }
}

impl Call {
    /// The call of a delivery. The messages that were merged into it are part of its text; everything else is taken from
    /// the delivery's own event.
    pub fn new(claimed: &Claimed, source: &SourceConfig, marks: &Marks) -> Self {
        Self::with_missing_files(claimed, source, marks, &[])
    }

    /// The same call, with a sentence about each file that is not sent with it.
    pub fn with_missing_files(
        claimed: &Claimed,
        source: &SourceConfig,
        marks: &Marks,
        files: &[MissingFile],
    ) -> Self {
        let event = CallSource::of_claimed(claimed);
        if claimed.merged.is_empty() && claimed.dropped == 0 {
            return Self::of_one_event(event, source, marks, source.run_mode, files);
        }
        let mut context = Vec::new();
        let messages: Vec<CollectedMessage<'_>> = all_messages(claimed)
            .map(|(id, at, event_type, parts)| {
                context.extend(parts.context(source));
                CollectedMessage {
                    at,
                    event_type,
                    user: User::of(parts.params, &source.user_email_template),
                    text: parts.text(source, &marks.of_event(id.event, EVENT)),
                }
            })
            .collect();
        let mut text = collected::text(&messages, claimed.dropped);
        // The senders' names stand above the messages, so only names of files are left.
        let mark = marks.of_event(claimed.id.event, NAMES);
        text.push_str(&around_names(None, files, &mark));
        let user = collected::user(&messages).details();
        let context = with_sentences(context, files);
        Self::assembled(event, source, source.run_mode, text, user, context)
    }

    /// The call that a kept event would make for a delivery that is not owed yet.
    pub fn of_kept(
        event: &EventDetail,
        owed: &NewDelivery,
        source: &SourceConfig,
        marks: &Marks,
    ) -> Self {
        let parts = EventParts {
            params: &event.params,
            headers: &event.headers,
            body: &event.body,
        };
        let event = CallSource {
            event: event.summary.id,
            destination: &owed.destination,
            upstream_id: &owed.upstream_id,
            parts,
        };
        Self::of_one_event(event, source, marks, source.run_mode, &[])
    }

    /// The call of an event that is not in the inbox yet.
    pub fn of_event(
        event: &NewEvent,
        owed: &NewDelivery,
        source: &SourceConfig,
        marks: &Marks,
        run: RunMode,
    ) -> Self {
        let parts = EventParts {
            params: &event.params,
            headers: &event.headers,
            body: &event.body,
        };
        let event = CallSource {
            event: event.id,
            destination: &owed.destination,
            upstream_id: &owed.upstream_id,
            parts,
        };
        Self::of_one_event(event, source, marks, run, &[])
    }

    fn of_one_event(
        event: CallSource<'_>,
        source: &SourceConfig,
        marks: &Marks,
        run: RunMode,
        files: &[MissingFile],
    ) -> Self {
        let parts = event.parts;
        let mut text = parts.text(source, &marks.of_event(event.event, EVENT));
        let user = User::of(parts.params, &source.user_email_template);
        // Without a prompt the text is JSON from end to end and stays so; the names are in it.
        if prompt(parts.params).is_some() {
            let mark = marks.of_event(event.event, NAMES);
            text.push_str(&around_names(user.bare_name(), files, &mark));
        }
        let context = parts.context(source).into_iter().collect();
        let context = with_sentences(context, files);
        Self::assembled(event, source, run, text, user.details(), context)
    }

    fn assembled(
        event: CallSource<'_>,
        source: &SourceConfig,
        run: RunMode,
        text: String,
        user: Option<UserDetails>,
        context: Vec<String>,
    ) -> Self {
        let collection = match event.destination.kind {
            DestinationKind::Workflow => "workflows",
            // A channel is no part of the upstream's API, and no call is made for one.
            DestinationKind::Agent | DestinationKind::Channel => "agents",
        };
        let (id, version) = (&event.destination.id, source.run.version.as_deref());
        let fields = source.run.fields.iter();
        Self {
            path: path::invoke(collection, id, run, version),
            body: InvokeBody {
                input: CallInput {
                    files: Vec::new(),
                    text,
                    user,
                },
                id: Some(event.upstream_id.to_owned()).filter(|id| !id.is_empty()),
                user_tokens: None,
                fields: fields
                    .map(|(name, value)| (Cow::Borrowed(*name), value.clone()))
                    .collect(),
                additional_context: Some(context.join("\n")).filter(|context| !context.is_empty()),
            },
            timeout: source.run.timeout,
            key: None,
            run,
        }
    }

    /// `input.text`, by which this message of a conversation is told from another.
    pub fn text(&self) -> &str {
        &self.body.input.text
    }

    /// The same call with links to files.
    #[must_use]
    pub fn with_files(self, links: &[String]) -> Self {
        Self {
            body: self.body.with_files(links),
            ..self
        }
    }
}

/// The messages of a claimed delivery: its own, and those that were merged into it.
fn all_messages<'a>(
    claimed: &'a Claimed,
) -> impl Iterator<Item = (DeliveryId, Timestamp, Option<&'a str>, EventParts<'a>)> {
    let own = (
        claimed.id,
        claimed.received_at,
        claimed.event_type.as_deref(),
        CallSource::of_claimed(claimed).parts,
    );
    let merged = claimed.merged.iter().map(|one| {
        let parts = EventParts {
            params: &one.params,
            headers: &one.headers,
            body: &one.body,
        };
        (one.id, one.received_at, one.event_type.as_deref(), parts)
    });
    std::iter::once(own).chain(merged)
}

/// The context of a run with a sentence about each file that is not attached.
fn with_sentences(mut context: Vec<String>, files: &[MissingFile]) -> Vec<String> {
    context.extend(files.iter().map(|file| file.sentence.clone()));
    context
}

//! Keeping events and what they owe, in batches; owing an event again.
//!
//! A batch is one transaction, in an order that lets several writers work side by side: first the lanes are locked, in
//! order of name; then come the events, in order of key; then all that hangs on them; the counters last. The numbers of
//! deliveries are drawn while their lanes are locked, so that in a lane their order is that of the commits.

use std::ops::Range;

use deadpool_postgres::{Client, Transaction};

use super::backlog::judge;
use super::database::Counts;
use super::dedup::known;
use super::error::DatabaseError;
use super::insert::{Places, insert_events, insert_rest};
use super::lane::lock_lanes_of;
use super::owe::{KEYS, draw};
use super::proof::{self, Played};
use super::record::{Record, RequestRecords};
use super::routes;
use crate::model::{Accepted, NewEvent, Route};

/// New numbers for events, and for deliveries.
const SEQS: &str = "SELECT nextval('event_seq') FROM generate_series(1, $1)";

/// Keeps what can be kept of a batch of requests, in one transaction, and says of each event what became of it.
pub(super) async fn keep(
    conn: &mut Client,
    slot: i32,
    requests: &[&RequestRecords],
) -> Result<Vec<Vec<Accepted>>, DatabaseError> {
    let batch: Vec<&Record> = requests.iter().flat_map(|together| &together.0).collect();
    let mut from = 0;
    let spans: Vec<Range<usize>> = requests
        .iter()
        .map(|together| {
            let span = from..from + together.0.len();
            from = span.end;
            span
        })
        .collect();
    let answers = keep_batch(conn, slot, &batch, &spans).await?;
    Ok(spans
        .into_iter()
        .map(|span| answers[span].to_vec())
        .collect())
}

/// A span is the places of the events of one request.
async fn keep_batch(
    conn: &mut Client,
    slot: i32,
    batch: &[&Record],
    spans: &[Range<usize>],
) -> Result<Vec<Accepted>, DatabaseError> {
    let events: Vec<&NewEvent> = batch.iter().map(|record| &record.event).collect();
    let tx = conn.transaction().await?;
    let routes = routes::numbers(&tx, events.iter().flat_map(|event| event_routes(event))).await?;
    let lanes = lock_lanes_of(&tx, &events, &routes).await?;
    let used = proof::used(&tx, &events).await?;
    let mut played = used.played(&events);
    let mut verdicts = judge(&tx, &events, spans, &played, &lanes, &routes).await?;
    give_way_to_replays(spans, &mut played, &mut verdicts);
    let open = |place: &usize| verdicts[*place].is_none() && played[*place].is_none();
    let chosen: Vec<usize> = (0..events.len()).filter(open).collect();
    let owed = chosen
        .iter()
        .map(|place| events[*place].deliveries.len())
        .sum();
    let (seqs, keys) = tokio::try_join!(draw(&tx, SEQS, chosen.len()), draw(&tx, KEYS, owed))?;
    let fresh = insert_events(&tx, batch, &chosen, &seqs).await?;

    let mut answers = verdicts;
    let mut kept = Vec::new();
    let mut known_ones = Vec::new();
    for (place, seq) in chosen.into_iter().zip(seqs) {
        if fresh.contains_key(&seq) {
            answers[place] = Some(Accepted::New);
            kept.push((batch[place], seq));
        } else {
            known_ones.push(place);
        }
    }
    answer_doubles(&tx, &events, known_ones, &mut answers).await?;
    answer_replays(&tx, &events, &played, &mut answers).await?;

    let mut counts = Counts::default();
    let places = Places {
        lanes: &lanes,
        routes: &routes,
    };
    insert_rest(&tx, &kept, keys, &places, &mut counts).await?;
    used.write(
        &tx,
        &events,
        &answers,
        &kept
            .iter()
            .map(|(record, seq)| (record.event.id, *seq))
            .collect(),
    )
    .await?;
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    answers
        .into_iter()
        .map(|answer| answer.ok_or_else(|| DatabaseError::Engine("an event has no answer".into())))
        .collect()
}

/// Lets the events of a request whose proof was used before be what they were then.
fn give_way_to_replays(
    spans: &[Range<usize>],
    played: &mut [Option<Played>],
    verdicts: &mut [Option<Accepted>],
) {
    for span in spans {
        let Some(replayed) = played.get(span.start).copied().flatten() else {
            continue;
        };
        for (verdict, played) in verdicts[span.clone()]
            .iter_mut()
            .zip(&mut played[span.clone()])
        {
            // The proof of the first is that of the request: an item that was put into it is no news.
            played.get_or_insert(replayed);
            // One that came before is that first, whatever keeps its lane busy or its source behind.
            if matches!(verdict, Some(Accepted::Busy | Accepted::Behind)) {
                *verdict = None;
            }
        }
    }
}

/// Answers events that were there already when they were to be inserted.
async fn answer_doubles(
    tx: &Transaction<'_>,
    events: &[&NewEvent],
    doubles: Vec<usize>,
    answers: &mut [Option<Accepted>],
) -> Result<(), DatabaseError> {
    let found = known(tx, doubles.iter().map(|place| events[*place])).await?;
    for (place, id) in doubles.into_iter().zip(found) {
        // Gone again since: a sweep was quicker.
        let id = id.ok_or_else(|| {
            DatabaseError::Again("an event was removed while a copy of it came in".into())
        })?;
        answers[place] = Some(Accepted::Duplicate(id));
    }
    Ok(())
}

/// Answers events whose proof was used before.
async fn answer_replays(
    tx: &Transaction<'_>,
    events: &[&NewEvent],
    played: &[Option<Played>],
    answers: &mut [Option<Accepted>],
) -> Result<(), DatabaseError> {
    let again: Vec<usize> = (0..events.len())
        .filter(|place| answers[*place].is_none() && played[*place].is_some())
        .collect();
    let found = known(tx, again.iter().map(|place| events[*place])).await?;
    for (place, known) in again.into_iter().zip(found) {
        answers[place] = match (known, played[place]) {
            (Some(id), _) => Some(Accepted::Duplicate(id)),
            (None, Some(Played::By(id))) => Some(Accepted::Replayed(id)),
            // What used the proof was passed on: there is no event to name.
            (None, Some(Played::PassedOn)) => Some(Accepted::Replayed(events[place].id)),
            (None, Some(Played::With(first))) => after(events, answers, first, place),
            (None, None) => None,
        };
    }
    Ok(())
}

/// The answer to an event that has its proof from an earlier one of its batch.
fn after(
    events: &[&NewEvent],
    answers: &[Option<Accepted>],
    first: usize,
    place: usize,
) -> Option<Accepted> {
    let is_double = events[place].dedup.is_some() && events[place].dedup == events[first].dedup;
    Some(match answers[first]? {
        Accepted::New if is_double => Accepted::Duplicate(events[first].id),
        Accepted::New => Accepted::Replayed(events[first].id),
        Accepted::Duplicate(id) | Accepted::Replayed(id) if is_double => Accepted::Duplicate(id),
        Accepted::Duplicate(id) | Accepted::Replayed(id) => Accepted::Replayed(id),
        turned_away @ (Accepted::Busy | Accepted::Behind) => turned_away,
    })
}

fn event_routes(event: &NewEvent) -> impl Iterator<Item = Route> + '_ {
    event
        .deliveries
        .iter()
        .map(|delivery| delivery.route(&event.source))
}

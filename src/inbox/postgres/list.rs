//! Lists of events. Every list goes by an index and looks at a bounded number of rows for a page.

use std::collections::HashMap;

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::database::rows;
use super::error::DatabaseError;
use super::row::text;
use crate::inbox::bounds::{DISORDER, LIST_BODIES, LIST_WINDOW, PAGE, SHOWN_DELIVERIES};
use crate::inbox::{EventFilter, EventSummary, Page};
use crate::model::{DeliveryState, EventId, Timestamp};

/// Rows that are asked for together.
const CHUNK: usize = 500;

/// Bodies that are asked for together.
const BODY_CHUNK: usize = 50;

/// A page of events.
pub(super) async fn events(
    conn: &mut Client,
    filter: &EventFilter,
    indexed: bool,
) -> Result<Page<EventSummary>, DatabaseError> {
    let tx = conn.transaction().await?;
    let limit = filter.limit.clamp(1, PAGE);
    let window = if filter.text.is_some() && !indexed {
        LIST_BODIES
    } else {
        LIST_WINDOW
    };
    let mut walk = ListWalk::new(&tx, filter, indexed).await?;
    let mut items: Vec<(i64, EventSummary)> = Vec::new();
    while items.len() <= limit && walk.looked < window {
        let Some(more) = walk.step(&tx, true).await? else {
            break;
        };
        items.extend(more);
    }
    let next = if items.len() > limit {
        items.truncate(limit);
        items.last().map(|(seq, _)| *seq)
    } else {
        walk.place.filter(|_| !walk.ended)
    };
    Ok(Page {
        items: items.into_iter().map(|(_, event)| event).collect(),
        next,
    })
}

/// Counts the events that fit, up to a number.
pub(super) async fn count(
    conn: &mut Client,
    filter: &EventFilter,
    indexed: bool,
    most: u64,
) -> Result<u64, DatabaseError> {
    let tx = conn.transaction().await?;
    let mut walk = ListWalk::new(&tx, filter, indexed).await?;
    let mut count = 0;
    while count < most {
        let Some(more) = walk.step(&tx, false).await? else {
            break;
        };
        count += more.len() as u64;
    }
    Ok(count.min(most))
}

/// The index a list goes by, and what it is looked up with.
enum ListIndex<'a> {
    Words(&'a str),
    Dedup(Vec<String>, &'a [u8]),
    Thread(&'a [u8]),
    State(&'static str),
    Open,
    Source(&'a str),
    All,
}

/// Columns of an event in a list.
const COLUMNS: &str =
    "e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered";

/// The statement for events of which a delivery needs an operator, each state by its part of the index.
fn open_sql(order: &str) -> String {
    let half = |state: DeliveryState| {
        format!(
            "(SELECT (d.event + 0) AS seq FROM delivery AS d
              WHERE d.state = '{}' AND d.state <> 'delivered' AND (d.event + 0) > $1 AND (d.event + 0) < $2
              ORDER BY (d.event + 0) {order} LIMIT $3)",
            state.as_str()
        )
    };
    let halves: Vec<String> = DeliveryState::ALL
        .into_iter()
        .filter(|state| state.needs_attention())
        .map(half)
        .collect();
    format!(
        "SELECT {COLUMNS} FROM (SELECT n.seq FROM ({}) AS n ORDER BY n.seq {order} LIMIT $3) AS d
            JOIN event AS e ON e.seq = d.seq ORDER BY d.seq {order}",
        halves.join(" UNION ALL ")
    )
}

/// A walk over the events that may fit.
struct ListWalk<'a> {
    filter: &'a EventFilter,
    way: ListIndex<'a>,
    /// Words that the bodies have to be searched for.
    words: Vec<String>,
    above: i64,
    below: i64,
    looked: usize,
    place: Option<i64>,
    ended: bool,
}

impl<'a> ListWalk<'a> {
    async fn new(
        tx: &Transaction<'_>,
        filter: &'a EventFilter,
        indexed: bool,
    ) -> Result<Self, DatabaseError> {
        let (mut above, mut below) = (i64::MIN, i64::MAX);
        if let Some(until) = filter.until {
            below = last_before(tx, until + DISORDER)
                .await?
                .map_or(i64::MIN, |last| last.saturating_add(1));
        }
        if let Some(since) = filter.since {
            above = last_before(tx, since - DISORDER).await?.unwrap_or(i64::MIN);
        }
        match filter.cursor {
            Some(cursor) if filter.oldest_first => above = above.max(cursor),
            Some(cursor) => below = below.min(cursor),
            None => {}
        }
        let text = filter
            .text
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        // Few deliveries are not delivered, so they have an index of their own; the others are found soon by looking.
        let listed = filter
            .state
            .filter(|state| *state != DeliveryState::Delivered);
        let way = match (
            text.filter(|_| indexed),
            &filter.dedup,
            &filter.thread,
            listed,
            &filter.source,
        ) {
            (Some(text), ..) => ListIndex::Words(text),
            (_, Some(dedup), _, _, Some(source)) => {
                ListIndex::Dedup(vec![source.clone()], dedup.as_bytes())
            }
            (_, Some(dedup), ..) => ListIndex::Dedup(sources(tx).await?, dedup.as_bytes()),
            (_, _, Some(thread), ..) => ListIndex::Thread(thread.as_bytes()),
            (_, _, _, Some(state), _) => ListIndex::State(state.as_str()),
            _ if filter.open == Some(true) => ListIndex::Open,
            (_, _, _, _, Some(source)) => ListIndex::Source(source),
            _ => ListIndex::All,
        };
        let searched = text.filter(|_| !indexed);
        let words = searched
            .map(|text| text.split_whitespace().map(str::to_lowercase).collect())
            .unwrap_or_default();
        Ok(Self {
            filter,
            way,
            words,
            above,
            below,
            looked: 0,
            place: None,
            ended: false,
        })
    }

    /// Those of the next events that fit; none when there are no more to look at.
    async fn step(
        &mut self,
        tx: &Transaction<'_>,
        with_states: bool,
    ) -> Result<Option<Vec<(i64, EventSummary)>>, DatabaseError> {
        if self.ended {
            return Ok(None);
        }
        let chunk = if self.words.is_empty() {
            CHUNK
        } else {
            BODY_CHUNK
        };
        let found = self.chunk(tx, chunk).await?;
        self.looked += found.len();
        self.ended = found.len() < chunk;
        let mut fitting: Vec<(i64, EventSummary)> = Vec::new();
        for row in &found {
            let seq = row.try_get(0)?;
            if self.place.replace(seq) == Some(seq) {
                // An event with two such deliveries.
                continue;
            }
            let event = summary(row)?;
            if self.fits(&event) {
                fitting.push((seq, event));
            }
        }
        if let Some(place) = self.place {
            if self.filter.oldest_first {
                self.above = place
            } else {
                self.below = place
            }
        }
        let by_state = self.filter.state.is_some() || self.filter.open.is_some();
        if with_states || by_state || self.filter.destination.is_some() {
            self.add_states(tx, &mut fitting).await?;
        }
        if !self.words.is_empty() {
            self.search(tx, &mut fitting).await?;
        }
        Ok(Some(fitting))
    }

    async fn chunk(&self, tx: &Transaction<'_>, most: usize) -> Result<Vec<Row>, DatabaseError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let words;
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&self.above, &self.below, &most];
        match &self.way {
            ListIndex::All | ListIndex::Open => {}
            ListIndex::Source(source) => params.push(source),
            ListIndex::Thread(thread) => params.push(thread),
            ListIndex::State(state) => params.push(state),
            ListIndex::Dedup(sources, dedup) => {
                params.push(sources);
                params.push(dedup);
            }
            ListIndex::Words(looked_for) => {
                words = looked_for.replace('\0', " ");
                params.push(&words);
            }
        }
        rows(tx, &self.sql(), &params).await
    }

    /// The statement for a chunk: $1 and $2 are the numbers it lies between, $3 its length.
    fn sql(&self) -> String {
        let order = if self.filter.oldest_first {
            "ASC"
        } else {
            "DESC"
        };
        let of_event = |condition: &str, seq: &str| {
            format!(
                "SELECT {COLUMNS} FROM event AS e WHERE {condition} AND {seq} > $1 AND {seq} < $2
                 ORDER BY {seq} {order} LIMIT $3"
            )
        };
        match &self.way {
            ListIndex::All => of_event("true", "e.seq"),
            ListIndex::Source(_) => of_event("e.source = $4", "(e.seq + 0)"),
            ListIndex::Thread(_) => {
                of_event("e.thread = $4 AND e.thread IS NOT NULL", "(e.seq + 0)")
            }
            ListIndex::Dedup(..) => of_event(
                "e.source = ANY ($4) AND e.dedup = $5 AND e.dedup IS NOT NULL",
                "(e.seq + 0)",
            ),
            ListIndex::State(_) => format!(
                "SELECT {COLUMNS} FROM (
                    SELECT (d.event + 0) AS seq FROM delivery AS d
                    WHERE d.state = $4 AND d.state <> 'delivered' AND (d.event + 0) > $1 AND (d.event + 0) < $2
                    ORDER BY (d.event + 0) {order} LIMIT $3
                 ) AS d JOIN event AS e ON e.seq = d.seq ORDER BY d.seq {order}"
            ),
            ListIndex::Open => open_sql(order),
            ListIndex::Words(_) => format!(
                "SELECT {COLUMNS} FROM (
                    SELECT (w.seq + 0) AS seq FROM words AS w
                    WHERE w.words @@ plainto_tsquery('simple', $4) AND (w.seq + 0) > $1 AND (w.seq + 0) < $2
                    ORDER BY (w.seq + 0) {order} LIMIT $3
                 ) AS w JOIN event AS e ON e.seq = w.seq ORDER BY w.seq {order}"
            ),
        }
    }

    fn fits(&self, event: &EventSummary) -> bool {
        let filter = self.filter;
        let same =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        filter
            .source
            .as_ref()
            .is_none_or(|source| *source == event.source)
            && same(&filter.event_type, &event.event_type)
            && same(&filter.thread, &event.thread)
            && same(&filter.dedup, &event.dedup)
            && filter
                .filtered
                .is_none_or(|filtered| filtered == event.filtered.is_some())
            && filter.since.is_none_or(|since| event.received_at >= since)
            && filter.until.is_none_or(|until| event.received_at < until)
    }

    /// Reads the deliveries' states, and lets go what does not fit for them.
    async fn add_states(
        &self,
        tx: &Transaction<'_>,
        events: &mut Vec<(i64, EventSummary)>,
    ) -> Result<(), DatabaseError> {
        let seqs: Vec<i64> = events.iter().map(|(seq, _)| *seq).collect();
        let found = rows(
            tx,
            "SELECT n.seq, d.state, r.destination FROM unnest($1::bigint[]) AS n (seq)
                CROSS JOIN LATERAL (SELECT d.state, d.route, d.number FROM delivery AS d WHERE d.event = n.seq
                                    ORDER BY d.number LIMIT $2) AS d
                JOIN route AS r ON r.id = d.route ORDER BY n.seq, d.number",
            &[&seqs, &SHOWN_DELIVERIES],
        )
        .await?;
        let wanted = self.filter.destination.as_ref().map(ToString::to_string);
        let mut states: HashMap<i64, (Vec<DeliveryState>, bool)> = HashMap::new();
        for row in &found {
            let entry = states.entry(row.try_get(0)?).or_default();
            entry.0.push(state(row, 1)?);
            entry.1 |= wanted.as_deref() == Some(row.try_get(2)?);
        }
        events.retain_mut(|(seq, event)| {
            let (found, to_it) = states.remove(seq).unwrap_or_default();
            event.states = found;
            self.filter.fits_last(event.states.last().copied()) && (to_it || wanted.is_none())
        });
        Ok(())
    }

    /// Lets go what does not say all the words.
    async fn search(
        &self,
        tx: &Transaction<'_>,
        events: &mut Vec<(i64, EventSummary)>,
    ) -> Result<(), DatabaseError> {
        let seqs: Vec<i64> = events.iter().map(|(seq, _)| *seq).collect();
        let found = rows(
            tx,
            "SELECT seq, body FROM body WHERE seq = ANY ($1)",
            &[&seqs],
        )
        .await?;
        let mut saying = Vec::with_capacity(found.len());
        for row in &found {
            let body = String::from_utf8_lossy(row.try_get(1)?).to_lowercase();
            if self.words.iter().all(|word| body.contains(word.as_str())) {
                saying.push(row.try_get::<_, i64>(0)?);
            }
        }
        events.retain(|(seq, _)| saying.contains(seq));
        Ok(())
    }
}

/// Every source there are events of; from one to the next by the index.
async fn sources(tx: &Transaction<'_>) -> Result<Vec<String>, DatabaseError> {
    let found = rows(
        tx,
        "WITH RECURSIVE s (source) AS (
            (SELECT e.source FROM event AS e ORDER BY e.source LIMIT 1)
            UNION ALL
            SELECT (SELECT e.source FROM event AS e WHERE e.source > s.source ORDER BY e.source LIMIT 1)
            FROM s WHERE s.source IS NOT NULL
         )
         SELECT s.source FROM s WHERE s.source IS NOT NULL LIMIT 10000",
        &[],
    )
    .await?;
    Ok(found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

/// The number of the last event received before a time.
async fn last_before(tx: &Transaction<'_>, time: Timestamp) -> Result<Option<i64>, DatabaseError> {
    let sql =
        "SELECT seq FROM event WHERE received_at < $1 ORDER BY received_at DESC, seq DESC LIMIT 1";
    Ok(rows(tx, sql, &[&time.millis()])
        .await?
        .first()
        .map(|row| row.try_get(0))
        .transpose()?)
}

/// Columns 1 to 7 of a list, its states still missing.
pub(super) fn summary(row: &Row) -> Result<EventSummary, DatabaseError> {
    let id: Uuid = row.try_get(1)?;
    Ok(EventSummary {
        id: EventId::from_bytes(id.into_bytes()),
        source: row.try_get(2)?,
        event_type: text(row, 3)?,
        dedup: text(row, 4)?,
        thread: text(row, 5)?,
        received_at: Timestamp::from_millis(row.try_get(6)?),
        filtered: row.try_get(7)?,
        states: Vec::new(),
    })
}

/// A state, by its word.
pub(super) fn state(row: &Row, column: usize) -> Result<DeliveryState, DatabaseError> {
    let word: &str = row.try_get(column)?;
    DeliveryState::parse(word).ok_or_else(|| DatabaseError::Engine(format!("{word:?} is no state")))
}

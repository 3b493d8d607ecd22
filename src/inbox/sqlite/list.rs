//! Lists of events. Every list goes by an index and looks at a bounded number of rows for a page.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::row::state;
use super::search;
use crate::inbox::bounds::{DISORDER, LIST_BODIES, LIST_WINDOW, PAGE, SHOWN_DELIVERIES};
use crate::inbox::{EventFilter, EventSummary, Page};
use crate::model::{DeliveryState, EventId, Timestamp};

/// Bytes of a body that count as one body when bodies are read for a page; a larger body counts for several.
const LARGE: usize = 32 << 10;

/// A page of events. `indexed`: words are found by their index.
pub(super) fn events(
    conn: &Connection,
    filter: &EventFilter,
    indexed: bool,
) -> rusqlite::Result<Page<EventSummary>> {
    let limit = filter.limit.clamp(1, PAGE);
    let mut items = Vec::new();
    let next = ListWalk::new(conn, filter, indexed)?.go(|event| {
        items.push(event);
        items.len() < limit
    })?;
    Ok(Page { items, next })
}

/// Events of a page's window that fit, up to a number, and where to count on.
pub(super) fn count(
    conn: &Connection,
    filter: &EventFilter,
    indexed: bool,
    most: u64,
) -> rusqlite::Result<(u64, Option<i64>)> {
    let mut count = 0;
    let next = ListWalk::new(conn, filter, indexed)?.go(|_| {
        count += 1;
        count < most
    })?;
    Ok((count, next))
}

/// The index a list goes by, and what it is looked up with.
enum ListIndex<'a> {
    Words(String),
    Dedup(&'a str, Option<&'a str>),
    Thread(&'a str),
    State(DeliveryState),
    Open,
    Kind(&'a str),
    Source(&'a str),
    All,
}

/// A walk over the events that may fit.
struct ListWalk<'a> {
    conn: &'a Connection,
    filter: &'a EventFilter,
    way: ListIndex<'a>,
    /// Words that the bodies have to be searched for.
    words: Vec<String>,
    above: i64,
    below: i64,
}

impl<'a> ListWalk<'a> {
    fn new(conn: &'a Connection, filter: &'a EventFilter, indexed: bool) -> rusqlite::Result<Self> {
        let (mut above, mut below) = (i64::MIN, i64::MAX);
        if let Some(until) = filter.until {
            below = first_from(conn, until + DISORDER)?.unwrap_or(i64::MAX);
        }
        if let Some(since) = filter.since {
            above = last_before(conn, since - DISORDER)?.unwrap_or(i64::MIN);
        }
        match filter.cursor {
            Some(cursor) if filter.oldest_first => above = above.max(cursor),
            Some(cursor) => below = below.min(cursor),
            None => {}
        }
        let words = filter.text.as_deref().map(search::of).unwrap_or_default();
        // Few deliveries are not delivered, so they have an index of their own; the others are found soon by looking.
        let listed = filter
            .state
            .filter(|state| *state != DeliveryState::Delivered);
        let way = match (
            &filter.dedup,
            &filter.thread,
            listed,
            &filter.event_type,
            &filter.source,
        ) {
            (Some(dedup), ..) => ListIndex::Dedup(dedup, filter.source.as_deref()),
            _ if indexed && !words.is_empty() => ListIndex::Words(search::query(&words)),
            (_, Some(thread), ..) => ListIndex::Thread(thread),
            (_, _, Some(state), ..) => ListIndex::State(state),
            _ if filter.open == Some(true) => ListIndex::Open,
            (_, _, _, Some(kind), _) => ListIndex::Kind(kind),
            (.., Some(source)) => ListIndex::Source(source),
            _ => ListIndex::All,
        };
        let words = if matches!(way, ListIndex::Words(_)) {
            Vec::new()
        } else {
            words
        };
        Ok(Self {
            conn,
            filter,
            way,
            words,
            above,
            below,
        })
    }

    /// Hands on what fits until it is told to stop or has looked at enough. Gives where it stopped before its end.
    fn go(&self, mut found: impl FnMut(EventSummary) -> bool) -> rusqlite::Result<Option<i64>> {
        let window = if self.words.is_empty() {
            LIST_WINDOW
        } else {
            LIST_BODIES
        };
        let (sql, keys) = self.sql();
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(
            [self.above, self.below]
                .map(Value::Integer)
                .into_iter()
                .chain(keys),
        ))?;
        let (mut looked, mut last, mut full) = (0, None, false);
        while let Some(row) = rows.next()? {
            if full || looked >= window {
                return Ok(last);
            }
            looked += 1;
            let seq = row.get(0)?;
            if last.replace(seq) == Some(seq) {
                // An event with two such deliveries.
                continue;
            }
            let event = summary(row)?;
            if self.fits(&event)
                && let Some(states) = self.states(seq)?
                && self.says(seq, &mut looked)?
            {
                full = !found(EventSummary { states, ..event });
            }
        }
        Ok(None)
    }

    fn sql(&self) -> (String, Vec<Value>) {
        let columns =
            "e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered";
        let order = if self.filter.oldest_first {
            "ASC"
        } else {
            "DESC"
        };
        let of_event = |by: &str, condition: &str| {
            format!(
                "SELECT {columns} FROM event AS e {by} WHERE {condition} e.seq > ?1 AND e.seq < ?2 ORDER BY e.seq {order}"
            )
        };
        let text = |text: &str| vec![Value::Text(text.to_owned())];
        match &self.way {
            ListIndex::Words(words) => (
                format!(
                    "SELECT {columns} FROM words AS w CROSS JOIN event AS e ON e.seq = w.rowid
                     WHERE w.words MATCH ?3 AND w.rowid > ?1 AND w.rowid < ?2 ORDER BY w.rowid {order}"
                ),
                text(words),
            ),
            // One of each source at most, so there is little to put in order. The sources are found from one to the
            // next, however many events each has.
            ListIndex::Dedup(dedup, source) => (
                format!(
                    "WITH RECURSIVE s (source) AS (
                        SELECT coalesce(?4, (SELECT min(source) FROM event INDEXED BY event_source))
                        UNION ALL
                        SELECT (SELECT min(n.source) FROM event AS n INDEXED BY event_source WHERE n.source > s.source)
                        FROM s WHERE ?4 IS NULL AND s.source IS NOT NULL)
                     SELECT {columns} FROM s CROSS JOIN event AS e INDEXED BY event_dedup ON e.source = s.source
                     WHERE e.dedup = ?3 AND e.dedup IS NOT NULL AND e.seq > ?1 AND e.seq < ?2 ORDER BY e.seq {order}"
                ),
                vec![
                    Value::Text((*dedup).to_owned()),
                    source.map_or(Value::Null, |source| Value::Text(source.to_owned())),
                ],
            ),
            ListIndex::Kind(kind) => {
                (of_event("INDEXED BY event_kind", "e.event_type = ?3 AND e.event_type IS NOT NULL AND"), text(kind))
            }
            ListIndex::Thread(thread) => {
                (of_event("INDEXED BY event_thread", "e.thread = ?3 AND e.thread IS NOT NULL AND"), text(thread))
            }
            ListIndex::State(state) => (
                format!(
                    "SELECT {columns} FROM delivery AS d INDEXED BY delivery_state CROSS JOIN event AS e ON e.seq = d.event
                     WHERE d.state <> 'delivered' AND d.state = ?3 AND d.event > ?1 AND d.event < ?2
                     ORDER BY d.event {order}"
                ),
                text(state.as_str()),
            ),
            // Each half comes in order, so that the two are read as one list and nothing is sorted.
            ListIndex::Open => {
                let half = |state: DeliveryState| {
                    format!(
                        "SELECT {columns} FROM delivery AS d INDEXED BY delivery_state
                            CROSS JOIN event AS e ON e.seq = d.event
                         WHERE d.state <> 'delivered' AND d.state = '{}' AND d.event > ?1 AND d.event < ?2",
                        state.as_str()
                    )
                };
                let halves: Vec<String> =
                    DeliveryState::ALL.into_iter().filter(|state| state.needs_attention()).map(half).collect();
                (format!("{} ORDER BY 1 {order}", halves.join(" UNION ALL ")), Vec::new())
            }
            ListIndex::Source(source) => (of_event("INDEXED BY event_source", "e.source = ?3 AND"), text(source)),
            ListIndex::All => (of_event("", ""), Vec::new()),
        }
    }

    fn fits(&self, event: &EventSummary) -> bool {
        let filter = self.filter;
        let same = |wanted: &Option<String>, found: Option<&String>| {
            wanted.is_none() || wanted.as_ref() == found
        };
        same(&filter.source, Some(&event.source))
            && same(&filter.event_type, event.event_type.as_ref())
            && same(&filter.thread, event.thread.as_ref())
            && same(&filter.dedup, event.dedup.as_ref())
            && filter
                .filtered
                .is_none_or(|filtered| filtered == event.filtered.is_some())
            && filter.since.is_none_or(|since| event.received_at >= since)
            && filter.until.is_none_or(|until| event.received_at < until)
    }

    /// The states of an event's deliveries; `None` if no delivery is as wanted.
    fn states(&self, seq: i64) -> rusqlite::Result<Option<Vec<DeliveryState>>> {
        let wanted = self.filter.destination.as_ref().map(ToString::to_string);
        let mut statement = self.conn.prepare_cached(
            "SELECT state, destination FROM delivery WHERE event = ?1 ORDER BY number LIMIT ?2",
        )?;
        let mut rows = statement.query((seq, SHOWN_DELIVERIES))?;
        let mut states = Vec::new();
        let mut fits = wanted.is_none();
        while let Some(row) = rows.next()? {
            let state = state(row, 0)?;
            if let Some(wanted) = &wanted {
                fits |= row.get_ref(1)?.as_str()? == wanted;
            }
            states.push(state);
        }
        Ok((fits && self.filter.fits_last(states.last().copied())).then_some(states))
    }

    /// True if the body has the words that are looked for in it. What that costs is added to `looked`.
    fn says(&self, seq: i64, looked: &mut usize) -> rusqlite::Result<bool> {
        if self.words.is_empty() {
            return Ok(true);
        }
        let body: Vec<u8> = self
            .conn
            .prepare_cached("SELECT body FROM body WHERE seq = ?1")?
            .query_row([seq], |row| row.get(0))?;
        *looked += body.len() / LARGE;
        let Some(text) = search::text(&body) else {
            return Ok(false);
        };
        let text = text.to_lowercase();
        Ok(self.words.iter().all(|word| text.contains(word)))
    }
}

/// The number of the first event received at a time or after.
fn first_from(conn: &Connection, time: Timestamp) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT seq FROM event INDEXED BY event_received WHERE received_at >= ?1 ORDER BY received_at, seq LIMIT 1",
    )?
    .query_row([time.millis()], |row| row.get(0))
    .optional()
}

/// The number of the last event received before a time.
fn last_before(conn: &Connection, time: Timestamp) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT seq FROM event INDEXED BY event_received WHERE received_at < ?1
         ORDER BY received_at DESC, seq DESC LIMIT 1",
    )?
    .query_row([time.millis()], |row| row.get(0))
    .optional()
}

/// Columns 1 to 7 of a list, its states still missing.
pub(super) fn summary(row: &Row<'_>) -> rusqlite::Result<EventSummary> {
    Ok(EventSummary {
        id: EventId::from_bytes(row.get(1)?),
        source: row.get(2)?,
        event_type: row.get(3)?,
        dedup: row.get(4)?,
        thread: row.get(5)?,
        received_at: Timestamp::from_millis(row.get(6)?),
        filtered: row.get(7)?,
        states: Vec::new(),
    })
}

//! Streamed runs (`…/invoke/stream`): server-sent events, read until the one that says the run has ended. The end is that
//! event and not the closing of the connection.
//!
//! The parser is pure and bounded: fed with pieces however they are cut, it returns whole events. Only the data of an event
//! is read; comments, other fields and unknown types are skipped; lines end in LF, CRLF or CR.

use std::borrow::Cow;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use crate::model::{AttemptResult, Run};

/// The type of the event that ends a run.
const FINISHED: &str = "task_finished";

/// The error of a line or an event that is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Parser of server-sent events that takes a stream in pieces.
#[derive(Debug)]
pub struct SseParser {
    /// The longest line, and the longest data of an event, in bytes.
    limit: usize,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    /// The data of an event that has come so far.
    data: Option<Vec<u8>>,
    /// True if the last piece ended in a CR, which an LF may follow.
    after_cr: bool,
    /// True while nothing has come yet; a byte order mark may.
    first: bool,
}

impl SseParser {
    /// A parser that holds at most this many bytes of a line and of an event.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: None,
            after_cr: false,
            first: true,
        }
    }

    /// Takes the next piece; returns the data of every event that is complete with it.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut whole = Vec::new();
        if std::mem::take(&mut self.after_cr) && piece.first() == Some(&b'\n') {
            piece = &piece[1..];
        }
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.grow(&piece[..end])?;
            let cr = piece[end] == b'\r';
            piece = &piece[end + 1..];
            match (cr, piece.first()) {
                (true, Some(b'\n')) => piece = &piece[1..],
                (true, None) => self.after_cr = true,
                _ => {}
            }
            whole.extend(self.end_line()?);
        }
        self.grow(piece)?;
        Ok(whole)
    }

    fn grow(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + piece.len() > self.limit {
            return Err(TooLong);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    /// Takes the line that is complete now; returns the event that it ends.
    fn end_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.first) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let Some(value) = line.strip_prefix(b"data") else {
            return Ok(None);
        };
        let value = match value.strip_prefix(b":") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if value.is_empty() => value,
            // Another field, whose name begins with the same letters.
            None => return Ok(None),
        };
        match &mut self.data {
            None => self.data = Some(value.to_vec()),
            Some(data) if data.len() + 1 + value.len() > self.limit => return Err(TooLong),
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
        Ok(None)
    }
}

/// An event of the upstream; older ones call their type `event`.
#[derive(Deserialize)]
struct UpstreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The end of a run, as far as an event reports it.
#[derive(Debug, PartialEq, Eq)]
enum RunEnd {
    /// The event is about something else.
    Other,
    /// The run has ended like this.
    Ended(Box<Run>),
    /// The run has ended, but its task cannot be read.
    Unreadable,
}

fn run_end(data: &[u8]) -> RunEnd {
    let Ok(told) = serde_json::from_slice::<UpstreamEvent<'_>>(data) else {
        return RunEnd::Other;
    };
    if told.kind.or(told.event).as_deref() != Some(FINISHED) {
        return RunEnd::Other;
    }
    let run = told
        .data
        .and_then(|task| answer::run(task.get().as_bytes()));
    run.map_or(RunEnd::Unreadable, |run| RunEnd::Ended(Box::new(run)))
}

/// Reads a stream to the end of its run. The caller bounds the time.
pub(super) async fn read(mut body: Incoming, limit: u64) -> AttemptResult {
    let mut events = SseParser::new(usize::try_from(limit).unwrap_or(usize::MAX));
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                return AttemptResult::Ambiguous(format!(
                    "the stream broke before the run ended: {error}"
                ));
            }
        };
        let Some(piece) = frame.data_ref() else {
            continue;
        };
        let Ok(whole) = events.feed(piece) else {
            return AttemptResult::Ambiguous(format!(
                "the stream had an event of more than {limit} bytes"
            ));
        };
        for data in whole {
            match run_end(&data) {
                RunEnd::Other => {}
                RunEnd::Ended(run) => return AttemptResult::Ran(*run),
                RunEnd::Unreadable => {
                    return AttemptResult::Ambiguous(
                        "the stream ended with something that is not a task".into(),
                    );
                }
            }
        }
    }
    AttemptResult::Ambiguous("the stream closed before the run ended".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::RunStatus;

    fn all(text: &str, cuts: &[usize]) -> Vec<String> {
        let mut events = SseParser::new(1 << 21);
        let mut whole = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([text.len()]) {
            let cut = cut.clamp(from, text.len());
            whole.extend(events.feed(&text.as_bytes()[from..cut]).unwrap());
            from = cut;
        }
        whole
            .into_iter()
            .map(|data| String::from_utf8(data).unwrap())
            .collect()
    }

    #[test]
    fn events_are_whole_at_a_blank_line_however_lines_end() {
        let lines = [
            "\u{feff}data: a",
            "",
            ": ping",
            "data:b",
            "id: 1",
            "data: c",
            "event: x",
            "",
            "",
            "database: no",
            "",
        ];
        for end in ["\n", "\r\n", "\r"] {
            let text: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            assert_eq!(all(&text, &[]), ["a", "b\nc"], "{end:?}");
        }
        assert_eq!(all("data: half", &[]), [""; 0]);
        assert_eq!(all("data\n\n", &[]), [""]);
    }

    #[test]
    fn a_line_of_a_megabyte_is_read_and_one_beyond_the_bound_is_not() {
        let long = format!("data: {}\n\n", "x".repeat(1 << 20));
        assert_eq!(all(&long, &[7, 99_999])[0].len(), 1 << 20);
        let mut events = SseParser::new(10);
        assert_eq!(events.feed(b"data: 12345"), Err(TooLong));
        let mut events = SseParser::new(10);
        assert_eq!(
            events.feed(b"data: 1234\ndata: 1234\ndata: 1234\n"),
            Err(TooLong)
        );
    }

    #[test]
    fn only_the_finished_task_ends_a_run() {
        let ended = |text: &str| run_end(text.as_bytes());
        for other in [
            "",
            "not JSON",
            "{}",
            r#"{"type":"chunk","data":"task_finished"}"#,
            r#"{"type":"sub_task_finished","data":{"status":"completed"}}"#,
            r#"{"type":null,"data":[]}"#,
        ] {
            assert_eq!(ended(other), RunEnd::Other, "{other}");
        }
        for key in ["type", "event"] {
            let task = r#"{"status":"completed","result":"42","n":1.50}"#;
            let RunEnd::Ended(run) =
                ended(&format!(r#"{{"{key}":"task_finished","data":{task}}}"#))
            else {
                panic!("{key}");
            };
            assert_eq!(
                (run.status, run.result.as_deref()),
                (RunStatus::Completed, Some("42"))
            );
            assert_eq!(
                run.task.as_deref(),
                Some(task.as_bytes()),
                "as the upstream wrote it"
            );
        }
        for odd in [
            r#"{"type":"task_finished"}"#,
            r#"{"type":"task_finished","data":[]}"#,
        ] {
            assert_eq!(ended(odd), RunEnd::Unreadable, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_makes_no_difference(text in "(data: ?[a-c]{0,3}|:x|id: 1|)(\r\n|\n|\r)(data:y\r\n\r\n|\n\n|\r){0,4}", mut cuts in prop::collection::vec(0_usize..60, 0..8)) {
            cuts.sort_unstable();
            prop_assert_eq!(all(&text, &cuts), all(&text, &[]));
        }

        #[test]
        fn any_bytes_do_no_harm(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SseParser::new(50).feed(&text);
            run_end(&text);
        }
    }
}

//! The sheet that answers are written on: its width, its colours, the characters it shows, and the form of times.
//!
//! A terminal says its width itself, `COLUMNS` goes before it, and what is neither is 80 wide. Colours are for terminals
//! only, and `NO_COLOR` takes them away. Where the locale is not UTF-8, our own marks are plain ASCII.

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::model::{Clock, Timestamp};

/// The width of what says none, and the bounds of one that is said.
const WIDTH: usize = 80;
const NARROW: usize = 40;
const WIDE: usize = 500;

/// Form of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Times {
    /// Time since then, like 3 min ago
    #[default]
    Ago,
    /// In UTC, like 2026-01-31T12:00:00Z
    Utc,
    /// In the time zone of this machine
    Local,
}

/// Abilities of a sheet.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Style {
    /// In columns.
    pub(in crate::cli) width: usize,
    colour: bool,
    ascii: bool,
    times: Times,
    now: Timestamp,
}

/// Meaning of a text's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    /// Nothing.
    Plain,
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// It goes on, or waits.
    Busy,
    /// It is of little interest.
    Faint,
    /// It is a heading.
    Head,
}

impl Tone {
    /// Of a delivery's state.
    pub(in crate::cli) fn of_state(state: &str) -> Self {
        match state {
            "delivered" | "completed" | "accepted" => Self::Good,
            "dead" | "unknown" | "unmappable" | "open" => Self::Bad,
            "pending" | "leased" | "running" | "half_open" => Self::Busy,
            _ => Self::Faint,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "33",
            Self::Faint => "2",
            Self::Head => "1",
        }
    }
}

impl Style {
    /// Of a sheet that is this wide and has no colours.
    #[cfg(test)]
    pub(in crate::cli) const fn plain(width: usize, times: Times, now: Timestamp) -> Self {
        Self {
            width,
            colour: false,
            ascii: false,
            times,
            now,
        }
    }

    fn of(terminal: Option<usize>, times: Times) -> Self {
        let colour =
            terminal.is_some() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            width: width(terminal),
            colour,
            ascii: !is_utf8(),
            times,
            now: Clock::system().now(),
        }
    }

    /// A text in its colour, where there are any.
    pub(in crate::cli) fn paint(&self, text: &str, tone: Tone) -> String {
        match (self.colour, tone.code()) {
            (false, _) | (_, "") => text.to_owned(),
            (true, code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }

    /// A time as it is told in lists; a dash without one.
    pub(in crate::cli) fn time(&self, value: &Value) -> String {
        let Some(at) = value.as_str().and_then(Timestamp::parse) else {
            return "-".into();
        };
        match self.times {
            Times::Ago if at > self.now => format!("in {}", span(at.since(self.now).as_secs())),
            Times::Ago => format!("{} ago", span(self.now.since(at).as_secs())),
            Times::Utc => seconds(&at.to_string()),
            Times::Local => local(at).unwrap_or_else(|| seconds(&at.to_string())),
        }
    }

    /// A time as it is told alone: to the millisecond, and how long ago that was.
    pub(in crate::cli) fn whole_time(&self, value: &Value) -> String {
        match (self.times, value.as_str().and_then(Timestamp::parse)) {
            (_, None) => "-".into(),
            (Times::Utc, Some(at)) => at.to_string(),
            (Times::Ago | Times::Local, Some(at)) => format!("{} ({at})", self.time(value)),
        }
    }
}

/// Without the fraction of a second.
fn seconds(text: &str) -> String {
    text.split_once('.')
        .map_or_else(|| text.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// In the time zone of this machine.
fn local(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at.millis()).ok()?;
    Some(
        TimeZone::system()
            .to_datetime(at)
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
    )
}

/// Seconds as one says them.
pub(in crate::cli) fn span(seconds: u64) -> String {
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5_400 => format!("{} min", seconds / 60),
        5_400..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Something to write answers on.
pub(in crate::cli) trait Paper: Write {
    /// Abilities of this sheet.
    fn look(&self) -> &Style;

    /// From here on every byte stays as it is.
    fn exact(&mut self);
}

/// Standard output or standard error, or memory.
#[derive(Debug)]
pub(in crate::cli) struct Sheet<W> {
    out: W,
    look: Style,
    exact: bool,
}

impl<W: Write> Sheet<W> {
    /// On something that looks so.
    pub(in crate::cli) const fn new(out: W, look: Style) -> Self {
        Self {
            out,
            look,
            exact: false,
        }
    }

    /// The writer below.
    #[cfg(test)]
    pub(in crate::cli) fn into_inner(self) -> W {
        self.out
    }
}

/// Standard output for answers, standard error for talk.
pub(in crate::cli) fn sheets(
    times: Times,
) -> (
    Sheet<io::StdoutLock<'static>>,
    Sheet<io::StderrLock<'static>>,
) {
    let (out, talk) = (io::stdout(), io::stderr());
    let out_look = Style::of(out.is_terminal().then(|| columns(&out)), times);
    let talk_look = Style::of(talk.is_terminal().then(|| columns(&talk)), times);
    (
        Sheet::new(out.lock(), out_look),
        Sheet::new(talk.lock(), talk_look),
    )
}

impl<W: Write> Paper for Sheet<W> {
    fn look(&self) -> &Style {
        &self.look
    }

    fn exact(&mut self) {
        self.exact = true;
    }
}

impl<W: Write> Write for Sheet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.look.ascii && !self.exact => {
                self.out.write_all(ascii(text).as_bytes())?
            }
            _ => self.out.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Our own marks in plain ASCII. What others wrote stays as it is.
fn ascii(text: &str) -> String {
    text.replace('…', "...").replace('«', "<").replace('»', ">")
}

/// A line of prose as standard error or standard output shows it: its marks as the locale has them, and broken where the
/// terminal ends. What goes elsewhere is one line, for whoever looks for words in it; `COLUMNS` asks for breaks there too.
pub(in crate::cli) fn prose(text: &str, terminal: Option<usize>) -> String {
    let text = if is_utf8() {
        text.to_owned()
    } else {
        ascii(text)
    };
    if terminal.is_none() && asked_width().is_none() {
        return text;
    }
    let width = width(terminal);
    let lines = text.lines().map(|line| {
        let indent = line.chars().take_while(|c| *c == ' ').count();
        wrap(
            line.trim_start(),
            width.saturating_sub(indent),
            width.saturating_sub(indent + 2),
        )
        .iter()
        .enumerate()
        .map(|(number, part)| {
            format!(
                "{}{part}",
                " ".repeat(if number == 0 { indent } else { indent + 2 })
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
    });
    let mut wrapped = lines.collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        wrapped.push('\n');
    }
    wrapped
}

/// The width of standard output, where it is a terminal.
pub(in crate::cli) fn out_columns() -> Option<usize> {
    let out = io::stdout();
    out.is_terminal().then(|| columns(&out))
}

/// The width of standard error, where it is a terminal.
pub(in crate::cli) fn talk_columns() -> Option<usize> {
    let talk = io::stderr();
    talk.is_terminal().then(|| columns(&talk))
}

fn columns(terminal: impl std::os::fd::AsFd) -> usize {
    rustix::termios::tcgetwinsize(terminal)
        .ok()
        .map_or(0, |size| usize::from(size.ws_col))
}

/// The width in the variable `COLUMNS`.
fn asked_width() -> Option<usize> {
    let text = std::env::var("COLUMNS").ok()?;
    text.trim().parse().ok().filter(|width| *width > 0)
}

/// The width to write in.
pub(in crate::cli) fn width(terminal: Option<usize>) -> usize {
    let said = asked_width().or(terminal.filter(|width| *width > 0));
    said.map_or(WIDTH, |width| width.clamp(NARROW, WIDE))
}

/// True if the locale writes UTF-8. The first variable that is set decides; without any it does, as nearly
/// everywhere.
fn is_utf8() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok());
    match said.into_iter().find(|value| !value.is_empty()) {
        Some(value) => {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        }
        None => true,
    }
}

/// The columns that a text takes on a terminal: characters of East Asia and pictures take two.
pub(in crate::cli) fn columns_of(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

const fn char_columns(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Breaks a text between words, or within one that is longer than a line. The first line may have another width.
pub(in crate::cli) fn wrap(text: &str, first: usize, rest: usize) -> Vec<String> {
    let (first, rest) = (first.max(8), rest.max(8));
    let mut lines = vec![String::new()];
    let mut left = first;
    for word in text.split(' ') {
        let needs = columns_of(word);
        let line_is_empty = lines.last().is_none_or(String::is_empty);
        let gap = usize::from(!line_is_empty);
        if needs + gap <= left {
            if let Some(line) = lines.last_mut() {
                line.push_str(if gap == 1 { " " } else { "" });
                line.push_str(word);
            }
            left -= needs + gap;
            continue;
        }
        if !line_is_empty {
            lines.push(String::new());
            left = rest;
        }
        for c in word.chars() {
            if char_columns(c) > left {
                lines.push(String::new());
                left = rest;
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
            left = left.saturating_sub(char_columns(c));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_broken_between_words_and_long_words_within() {
        assert_eq!(wrap("one two three", 80, 80), ["one two three"]);
        assert_eq!(wrap("one two three", 9, 9), ["one two", "three"]);
        assert_eq!(
            wrap("a 0123456789abcdef z", 10, 9),
            ["a", "012345678", "9abcdef z"]
        );
        assert_eq!(wrap("", 10, 10), [""]);
        for line in wrap(&"日本語の長いテキスト ".repeat(20), 30, 20) {
            assert!(columns_of(&line) <= 30, "{line}");
        }
    }

    #[test]
    fn times_are_told_as_asked() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let at = |seconds: i64| json!(Timestamp::from_seconds(1_800_000_000 + seconds).to_string());
        let ago = Style::plain(80, Times::Ago, now);
        let told: Vec<String> = [-5, -200, -10_000, -400_000, 60]
            .map(|seconds| ago.time(&at(seconds)))
            .into();
        assert_eq!(
            told,
            ["5 s ago", "3 min ago", "2 h ago", "4 days ago", "in 60 s"]
        );
        assert_eq!(
            ago.whole_time(&at(-5)),
            "5 s ago (2027-01-15T07:59:55.000Z)"
        );
        let utc = Style::plain(80, Times::Utc, now);
        assert_eq!(utc.time(&at(0)), "2027-01-15T08:00:00Z");
        assert_eq!(
            (utc.time(&json!(null)), utc.whole_time(&json!("x"))),
            ("-".into(), "-".into())
        );
        assert_eq!(
            Style::plain(80, Times::Local, now).time(&at(0)).len(),
            "2027-01-15 08:00:00".len()
        );
    }

    #[test]
    fn marks_of_ours_are_ascii_where_the_locale_is_and_bytes_that_are_asked_for_stay() {
        let look = Style {
            ascii: true,
            ..Style::plain(80, Times::Ago, Timestamp::from_seconds(0))
        };
        let mut sheet = Sheet::new(Vec::new(), look);
        write!(sheet, "cut… ").expect("memory takes it");
        sheet.exact();
        write!(sheet, "cut…").expect("memory takes it");
        assert_eq!(sheet.into_inner(), "cut... cut…".as_bytes());
        let colour = Style {
            colour: true,
            ..look
        };
        assert_eq!(
            colour.paint("dead", Tone::of_state("dead")),
            "\u{1b}[31mdead\u{1b}[0m"
        );
        assert_eq!(look.paint("dead", Tone::Bad), "dead");
    }
}

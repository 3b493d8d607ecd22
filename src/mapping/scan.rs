//! JSON read in one pass over the body: what the dotted paths ask for is noted, the rest is only checked.
//!
//! Promises: nothing is allocated for what no path asks for; depth and number of values are bounded; strings are
//! checked down to their escapes; a number keeps its spelling. Of a key that stands twice in an object the last one
//! counts. Taken is exactly what RFC 8259 allows, nested less than [`DEPTH`] deep. That includes escapes of half a
//! surrogate pair, whose meaning the standard leaves open (8.2): they are read as U+FFFD.
//!
//! This is a reader of its own because a general one gives no spans, rewrites exponents, skips without looking into
//! strings, and takes some keys of an object for orders to itself.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::path::Dotted;

/// How deep arrays and objects may not nest.
pub(super) const DEPTH: u32 = 128;

/// How many values a body may have.
pub(super) const NODES: u32 = 100_000;

/// Why a text was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// It is not JSON from this byte on.
    Syntax(usize),
    /// It nests too deep.
    Depth,
    /// It has too many values.
    Nodes,
}

/// A text's pieces, one per path, where the path leads somewhere.
pub(super) type FoundPieces = Vec<Option<Range<usize>>>;

/// Checks a text and notes where each path leads.
pub(super) fn extract(text: &str, paths: &[Dotted]) -> Result<FoundPieces, JsonFault> {
    extract_noting(text, paths).map(|(found, _)| found)
}

/// The same. The flag says that the text has escapes of half a surrogate pair.
pub(super) fn extract_noting(
    text: &str,
    paths: &[Dotted],
) -> Result<(FoundPieces, bool), JsonFault> {
    let mut scan = Scan::new(text);
    let wants: Vec<PathCursor> = (0..paths.len())
        .map(|path| PathCursor { path, at: 0 })
        .collect();
    let mut found = vec![None; paths.len()];
    scan.walk(paths, &wants, &mut found)?;
    scan.end()?;
    Ok((found, scan.halves))
}

/// Reads a text as a tree.
pub(super) fn tree(text: &str) -> Result<Value, JsonFault> {
    let mut scan = Scan::new(text);
    let value = scan.tree()?;
    scan.end()?;
    Ok(value)
}

/// What is wanted of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Projection {
    /// Everything.
    All,
    /// Of an object these members, each as far as it is wanted; of a list nothing but that it is one.
    Members(Vec<(String, Projection)>),
}

impl Projection {
    /// Nothing yet.
    pub(super) const NOTHING: Self = Self::Members(Vec::new());

    /// Wants what these keys lead to as well, one below the other.
    pub(super) fn add(&mut self, mut keys: std::str::Split<'_, char>) {
        let Self::Members(members) = self else { return };
        let Some(key) = keys.next() else {
            *self = Self::All;
            return;
        };
        match members.iter_mut().find(|(known, _)| known == key) {
            Some((_, below)) => below.add(keys),
            None => {
                let mut below = Self::NOTHING;
                below.add(keys);
                members.push((key.to_owned(), below));
            }
        }
    }
}

/// Reads of a text, as a tree, what is wanted. The rest is checked all the same.
pub(super) fn part(text: &str, wanted: &Projection) -> Result<Value, JsonFault> {
    let mut scan = Scan::new(text);
    let value = scan.part(wanted)?;
    scan.end()?;
    Ok(value)
}

/// Reads a JSON string, quotes included. None if it is something else.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let mut scan = Scan::new(raw);
    if scan.next() != Some(b'"') {
        return None;
    }
    scan.at += 1;
    let quoted = scan.string().ok()?;
    (scan.at == raw.len()).then(|| quoted.text())
}

/// A path, and how many of its segments lie behind.
#[derive(Clone, Copy)]
struct PathCursor {
    path: usize,
    at: usize,
}

/// A place where a want may go on inside an object: of several, the one with the longest key wins.
struct MemberSlot {
    want: usize,
    to: usize,
    found: Option<Range<usize>>,
}

/// A reader on its way through a text.
pub(super) struct Scan<'a> {
    text: &'a str,
    /// How far it is.
    pub(super) at: usize,
    depth: u32,
    nodes: u32,
    halves: bool,
}

/// What stands between two quotes.
pub(super) struct Quoted<'a> {
    /// As it is written.
    pub(super) inner: &'a str,
    escaped: bool,
}

impl<'a> Scan<'a> {
    /// At the beginning.
    pub(super) const fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            nodes: 0,
            halves: false,
        }
    }

    /// Follows the wants into the value that comes next. `found` has a place for each.
    fn walk(
        &mut self,
        paths: &[Dotted],
        wants: &[PathCursor],
        found: &mut [Option<Range<usize>>],
    ) -> Result<(), JsonFault> {
        if wants.is_empty() {
            return self.skip();
        }
        let first = self.begin()?;
        let start = self.at;
        let mut next = Vec::new();
        match first {
            b'{' => {
                let mut slots: Vec<MemberSlot> = Vec::new();
                self.members(|scan, key| {
                    next.clear();
                    let key = key.text();
                    // The slots this key fills, one for each want that it takes further.
                    let mut into = Vec::new();
                    for (index, want) in wants.iter().enumerate() {
                        if let Some(to) = paths[want.path].key(want.at, &key) {
                            next.push(PathCursor {
                                path: want.path,
                                at: to,
                            });
                            let known = slots
                                .iter()
                                .position(|slot| (slot.want, slot.to) == (index, to));
                            into.push(known.unwrap_or_else(|| {
                                slots.push(MemberSlot {
                                    want: index,
                                    to,
                                    found: None,
                                });
                                slots.len() - 1
                            }));
                        }
                    }
                    if next.is_empty() {
                        return scan.skip();
                    }
                    let mut inner = vec![None; next.len()];
                    scan.walk(paths, &next, &mut inner)?;
                    for (slot, found) in into.into_iter().zip(inner) {
                        slots[slot].found = found;
                    }
                    Ok(())
                })?;
                slots.sort_by_key(|slot| slot.to);
                for slot in slots {
                    if slot.found.is_some() {
                        found[slot.want] = slot.found;
                    }
                }
            }
            b'[' => self.items(|scan, position| {
                next.clear();
                let mut into = Vec::new();
                for (index, want) in wants.iter().enumerate() {
                    if paths[want.path].index(want.at) == Some(position) {
                        next.push(PathCursor {
                            path: want.path,
                            at: want.at + 1,
                        });
                        into.push(index);
                    }
                }
                if next.is_empty() {
                    return scan.skip();
                }
                let mut inner = vec![None; next.len()];
                scan.walk(paths, &next, &mut inner)?;
                for (index, piece) in into.into_iter().zip(inner) {
                    found[index] = piece;
                }
                Ok(())
            })?,
            other => self.scalar(other)?,
        }
        for (want, found) in wants.iter().zip(found) {
            if want.at == paths[want.path].len() {
                *found = Some(start..self.at);
            }
        }
        Ok(())
    }

    /// Goes past the next value.
    pub(super) fn skip(&mut self) -> Result<(), JsonFault> {
        match self.begin()? {
            b'{' => self.members(|scan, _| scan.skip()),
            b'[' => self.items(|scan, _| scan.skip()),
            other => self.scalar(other),
        }
    }

    fn tree(&mut self) -> Result<Value, JsonFault> {
        let first = self.begin()?;
        let start = self.at;
        Ok(match first {
            b'{' => {
                let mut map = Map::new();
                self.members(|scan, key| {
                    let value = scan.tree()?;
                    map.insert(key.text().into_owned(), value);
                    Ok(())
                })?;
                Value::Object(map)
            }
            b'[' => {
                let mut list = Vec::new();
                self.items(|scan, _| {
                    list.push(scan.tree()?);
                    Ok(())
                })?;
                Value::Array(list)
            }
            b'"' => {
                self.at += 1;
                Value::String(self.string()?.text().into_owned())
            }
            other => {
                self.scalar(other)?;
                match other {
                    b't' => Value::Bool(true),
                    b'f' => Value::Bool(false),
                    b'n' => Value::Null,
                    _ => Value::Number(Number::from_string_unchecked(
                        self.text[start..self.at].to_owned(),
                    )),
                }
            }
        })
    }

    fn part(&mut self, wanted: &Projection) -> Result<Value, JsonFault> {
        let Projection::Members(members) = wanted else {
            return self.tree();
        };
        self.blanks();
        match self.next() {
            Some(b'{') => {
                self.begin()?;
                let mut map = Map::new();
                self.members(|scan, key| {
                    let key = key.text();
                    match members.iter().find(|(name, _)| *name == key) {
                        Some((name, below)) => drop(map.insert(name.clone(), scan.part(below)?)),
                        None => scan.skip()?,
                    }
                    Ok(())
                })?;
                Ok(Value::Object(map))
            }
            Some(b'[') => {
                self.skip()?;
                Ok(Value::Array(Vec::new()))
            }
            _ => self.tree(),
        }
    }

    /// Goes to the first byte of the next value and counts it.
    pub(super) fn begin(&mut self) -> Result<u8, JsonFault> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(JsonFault::Nodes);
        }
        self.blanks();
        self.next().ok_or(JsonFault::Syntax(self.at))
    }

    /// Nothing more may come.
    pub(super) fn end(&mut self) -> Result<(), JsonFault> {
        self.blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.fault()
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    const fn fault<T>(&self) -> Result<T, JsonFault> {
        Err(JsonFault::Syntax(self.at))
    }

    fn take(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.next() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.fault()
        }
    }

    const fn enter(&mut self) -> Result<(), JsonFault> {
        self.depth += 1;
        self.at += 1;
        if self.depth >= DEPTH {
            Err(JsonFault::Depth)
        } else {
            Ok(())
        }
    }

    const fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// Goes through an object: `each` reads what stands at a key.
    pub(super) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Quoted<'a>) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        self.enter()?;
        self.blanks();
        if self.next() == Some(b'}') {
            self.leave();
            return Ok(());
        }
        loop {
            self.blanks();
            self.take(b'"')?;
            let key = self.string()?;
            self.blanks();
            self.take(b':')?;
            each(self, key)?;
            self.blanks();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.leave();
                    return Ok(());
                }
                _ => return self.fault(),
            }
        }
    }

    /// Goes through a list: `each` reads what stands at a place.
    pub(super) fn items(
        &mut self,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        self.enter()?;
        self.blanks();
        if self.next() == Some(b']') {
            self.leave();
            return Ok(());
        }
        for position in 0.. {
            each(self, position)?;
            self.blanks();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.fault(),
            }
        }
        self.leave();
        Ok(())
    }

    /// Goes past what is neither an object nor a list.
    pub(super) fn scalar(&mut self, first: u8) -> Result<(), JsonFault> {
        match first {
            b'"' => {
                self.at += 1;
                self.string().map(|_| ())
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonFault> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.fault()
        }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        if self.next() == Some(b'-') {
            self.at += 1;
        }
        if self.next() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.next(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.next(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.at;
        while matches!(self.next(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            self.fault()
        } else {
            Ok(())
        }
    }

    /// Reads on behind an opening quote.
    fn string(&mut self) -> Result<Quoted<'a>, JsonFault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Quoted {
                        inner: &self.text[start..self.at - 1],
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                _ => return self.fault(),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                match self.hex()? {
                    0xd800..=0xdbff => self.low_half(),
                    0xdc00..=0xdfff => self.halves = true,
                    _ => {}
                }
            }
            _ => return self.fault(),
        }
        Ok(())
    }

    /// Goes past the second half of a pair, where it stands here. What stands in its place is read for itself.
    fn low_half(&mut self) {
        let behind = self.at;
        let is_escape = self.take(b'\\').and_then(|()| self.take(b'u')).is_ok();
        if !is_escape || !matches!(self.hex(), Ok(0xdc00..=0xdfff)) {
            self.at = behind;
            self.halves = true;
        }
    }

    fn hex(&mut self) -> Result<u32, JsonFault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return self.fault();
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}

/// How many bytes go before the first that is a quote, a backslash or a control character; eight are looked at at once.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // Below the lowest byte that is less than a bound the difference borrows from nobody: the lowest hit is a true one.
    let less = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & (ONES << 7);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let hits = less(word, 0x20) | less(word ^ (ONES * 0x22), 1) | less(word ^ (ONES * 0x5c), 1);
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let ends = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\');
    at + bytes[at..]
        .iter()
        .position(ends)
        .unwrap_or(bytes.len() - at)
}

impl<'a> Quoted<'a> {
    /// The text that is meant.
    pub(super) fn text(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.inner);
        }
        let mut text = String::with_capacity(self.inner.len());
        let mut rest = self.inner;
        while let Some((plain, escape)) = rest.split_once('\\') {
            text.push_str(plain);
            let mut chars = escape.chars();
            match chars.next() {
                Some('b') => text.push('\u{8}'),
                Some('f') => text.push('\u{c}'),
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('u') => {
                    let (character, after) = unicode(escape);
                    text.push(character);
                    rest = after;
                    continue;
                }
                Some(other) => text.push(other),
                None => {}
            }
            rest = chars.as_str();
        }
        text.push_str(rest);
        Cow::Owned(text)
    }
}

/// Reads `uXXXX`, or two of them that make one character. The scan has checked the digits. Half a character is U+FFFD.
fn unicode(escape: &str) -> (char, &str) {
    let unit = |from: usize| {
        escape
            .get(from..from + 4)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    let (code, length) = match unit(1) {
        high @ 0xd800..=0xdbff if escape.get(5..7) == Some("\\u") => match unit(7) {
            low @ 0xdc00..=0xdfff => (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 11),
            _ => (high, 5),
        },
        code => (code, 5),
    };
    (
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        escape.get(length..).unwrap_or(""),
    )
}

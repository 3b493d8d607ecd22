//! The grammar of JSON (RFC 8259), read from a text in one pass.
//!
//! [`Scan`] is a cursor: the caller says what to do with the members of an object and the items of a list, and the
//! cursor checks the grammar. It promises that depth and number of values are bounded, that strings are checked down to
//! their escapes, and that a number keeps its spelling. It takes exactly what RFC 8259 allows, nested less than
//! [`DEPTH`] deep. That includes an escape of half a surrogate pair, whose meaning the standard leaves open (8.2): it is
//! read as U+FFFD.
//!
//! A general parser does not do here: it gives no byte ranges, rewrites exponents, skips strings without checking them,
//! and gives some keys of an object (`$serde_json::private::Number`) a meaning of its own.

use std::borrow::Cow;

use super::quoted::Quoted;

/// Nesting of arrays and objects at which a text is refused.
pub const DEPTH: u32 = 128;

/// Most values that a body may have.
pub const NODES: u32 = 100_000;

/// Reason why a text was not read as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Invalid JSON; the first wrong byte stands at this offset.
    #[error("it is not JSON from byte {0} on")]
    Syntax(usize),
    /// Arrays and objects nest [`DEPTH`] deep or deeper.
    #[error("it nests {DEPTH} deep or deeper")]
    Depth,
    /// The text has more than [`NODES`] values.
    #[error("it has more than {NODES} values")]
    Nodes,
    /// One object has the same key twice, where that is refused.
    #[error("a key stands twice in one object")]
    RepeatedKey,
}

/// Reads a JSON string with its quotes; returns nothing for any other value.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    let mut scan = Scan::new(raw);
    let quoted = scan.string().ok()?;
    (scan.at == raw.len()).then(|| quoted.text())
}

/// Cursor in a JSON text.
#[derive(Debug)]
pub struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    nodes: u32,
    most_nodes: u32,
    halves: bool,
}

impl<'a> Scan<'a> {
    /// Cursor at the start of a text of at most [`NODES`] values.
    pub const fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            nodes: 0,
            most_nodes: NODES,
            halves: false,
        }
    }

    /// Cursor at the start of a text that may have any number of values.
    pub(super) const fn of_any_size(text: &'a str) -> Self {
        Self {
            most_nodes: u32::MAX,
            ..Self::new(text)
        }
    }

    /// Byte offset of the cursor.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text from an offset up to the cursor.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// True if an escape of half a surrogate pair was passed.
    pub(super) const fn has_halves(&self) -> bool {
        self.halves
    }

    /// Checks the next value and goes past it.
    pub fn skip(&mut self) -> Result<(), JsonFault> {
        match self.begin()? {
            b'{' => self.members(|scan, _| scan.skip()),
            b'[' => self.items(|scan, _| scan.skip()),
            other => self.scalar(other),
        }
    }

    /// Goes to the first byte of the next value, counts the value and returns the byte.
    pub fn begin(&mut self) -> Result<u8, JsonFault> {
        self.nodes += 1;
        if self.nodes > self.most_nodes {
            return Err(JsonFault::Nodes);
        }
        self.blanks();
        self.next().ok_or(JsonFault::Syntax(self.at))
    }

    /// Checks that nothing but blanks follows.
    pub fn end(&mut self) -> Result<(), JsonFault> {
        self.blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.fault()
        }
    }

    /// The byte under the cursor.
    pub(super) fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past blanks.
    pub(super) fn blanks(&mut self) {
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

    /// Reads the object under the cursor. `each` gets every key and has to read the value behind it.
    pub fn members(
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

    /// Reads the array under the cursor. `each` gets every index and has to read the value there.
    pub fn items(
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

    /// Checks a string, a number, `true`, `false` or `null` that begins with `first`, and goes past it.
    pub fn scalar(&mut self, first: u8) -> Result<(), JsonFault> {
        match first {
            b'"' => self.string().map(|_| ()),
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

    /// Reads the string under the cursor.
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, JsonFault> {
        self.take(b'"')?;
        self.quoted()
    }

    /// Reads the rest of a string whose opening quote lies behind the cursor.
    fn quoted(&mut self) -> Result<Quoted<'a>, JsonFault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Quoted::new(&self.text[start..self.at - 1], escaped));
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

    /// Goes past the second half of a surrogate pair. Any other text at the cursor is left for the next step.
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

/// Number of bytes before the first quote, backslash or control character. Eight bytes are looked at in one step.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The subtraction borrows only from bytes above the lowest hit, so the lowest hit is always correct.
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

//! One level of a multipart body, cut at its boundaries (RFC 2046, 5.1).

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memmem};

use super::fault::PartFault;

/// The most headers of a part, and their bytes.
const PART_HEADERS: usize = 16;
const PART_HEAD: usize = 8 * 1024;

/// The longest boundary (RFC 2046, 5.1.1), and the longest rest of a line that holds one.
const BOUNDARY: usize = 70;
const PADDING: usize = 256;

/// Part of a body between two boundaries, or its end.
#[derive(Debug)]
pub(super) enum LineEvent {
    /// The lines of a head, unfolded.
    Head(Vec<Vec<u8>>),
    Bytes(Bytes),
    End,
}

/// Position of the reader relative to the boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    /// Before the first boundary; the flag says that nothing was passed over yet.
    Preamble(bool),
    /// Behind a boundary, on its line; so many bytes of the boundary belong to the empty line before.
    Boundary(usize),
    /// In a head.
    Head,
    /// In a part's bytes; so many of them belong to the empty line before.
    Bytes(usize),
    /// Behind the closing boundary.
    Epilogue,
}

/// One level of a body, cut at its boundaries.
#[derive(Debug)]
pub(super) struct BoundarySplitter {
    /// The boundary with its line end before it; the first byte is the carriage return.
    delimiter: memmem::Finder<'static>,
    /// True until the first boundary was found.
    is_first: bool,
    /// True if text stood before the first boundary.
    has_preamble: bool,
    at: LineState,
    buffer: BytesMut,
    lines: Vec<Vec<u8>>,
    head: usize,
    is_part: bool,
}

impl BoundarySplitter {
    pub(super) fn new(boundary: &[u8]) -> Result<Self, PartFault> {
        let is_good = (1..=BOUNDARY).contains(&boundary.len())
            && boundary.iter().all(|byte| matches!(byte, b' '..=b'~'))
            && boundary.last() != Some(&b' ');
        if !is_good {
            return Err(PartFault::Boundary);
        }
        Ok(Self {
            delimiter: memmem::Finder::new(&[b"\r\n--", boundary].concat()).into_owned(),
            is_first: true,
            has_preamble: false,
            at: LineState::Preamble(true),
            buffer: BytesMut::new(),
            lines: Vec::new(),
            head: 0,
            is_part: false,
        })
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.at != LineState::Epilogue {
            self.buffer.extend_from_slice(bytes);
        }
    }

    pub(super) fn end(&self) -> Result<(), PartFault> {
        if self.at == LineState::Epilogue {
            Ok(())
        } else {
            Err(PartFault::NotWhole)
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<LineEvent>, PartFault> {
        loop {
            let found = match self.at {
                LineState::Preamble(is_start) => self.preamble(is_start),
                LineState::Boundary(before) => match self.boundary(before)? {
                    Some(Some(found)) => return Ok(Some(found)),
                    Some(None) => true,
                    None => false,
                },
                LineState::Head => match self.head()? {
                    Some(Some(lines)) => return Ok(Some(LineEvent::Head(lines))),
                    Some(None) => true,
                    None => false,
                },
                LineState::Bytes(before) => match self.bytes(before) {
                    Some(bytes) if !bytes.is_empty() => return Ok(Some(LineEvent::Bytes(bytes))),
                    Some(_) => true,
                    None => false,
                },
                LineState::Epilogue => {
                    self.buffer.clear();
                    false
                }
            };
            if !found {
                return Ok(None);
            }
        }
    }

    /// Finds the first boundary, at the start of a line.
    fn preamble(&mut self, is_start: bool) -> bool {
        let delimiter = self.delimiter.needle();
        let own = &delimiter[2..];
        if is_start {
            if self.buffer.len() < own.len() && own.starts_with(&self.buffer) {
                return false;
            }
            if self.buffer.starts_with(own) {
                self.buffer.advance(own.len());
                self.at = LineState::Boundary(0);
                return true;
            }
        }
        // Here a line may end in either way.
        match memmem::find(&self.buffer, &delimiter[1..]) {
            Some(at) => {
                self.has_preamble |= !self.buffer[..at].trim_ascii().is_empty();
                self.buffer.advance(at + delimiter.len() - 1);
                self.at = LineState::Boundary(0);
                true
            }
            None => {
                let keep = self.buffer.len().min(delimiter.len());
                self.has_preamble |= !self.buffer[..self.buffer.len() - keep]
                    .trim_ascii()
                    .is_empty();
                self.buffer.advance(self.buffer.len() - keep);
                self.at = LineState::Preamble(false);
                false
            }
        }
    }

    /// Reads the rest of a boundary's line. What was found is the end of the part before it; where the line is no
    /// boundary after all, bytes of that part.
    fn boundary(&mut self, before: usize) -> Result<Option<Option<LineEvent>>, PartFault> {
        if self.buffer.len() < 2 {
            return Ok(None);
        }
        let was_part = self.is_part;
        let ended = was_part.then_some(LineEvent::End);
        if self.buffer.starts_with(b"--") {
            // No part, yet something before the end: those are parts whose boundary is another one.
            if self.is_first && self.has_preamble {
                return Err(PartFault::NotWhole);
            }
            self.is_part = false;
            self.at = LineState::Epilogue;
            return Ok(Some(ended));
        }
        let padding = self
            .buffer
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'))
            .unwrap_or(self.buffer.len());
        let length = match &self.buffer[padding..] {
            [b'\n', ..] => padding + 1,
            [b'\r', b'\n', ..] => padding + 2,
            [] | [b'\r'] if padding <= PADDING => return Ok(None),
            _ if was_part => {
                let needle = self.delimiter.needle();
                let bytes = Bytes::copy_from_slice(&needle[before.min(needle.len())..]);
                self.at = LineState::Bytes(0);
                return Ok(Some(Some(LineEvent::Bytes(bytes))));
            }
            _ => return Err(PartFault::NotWhole),
        };
        if self.is_first && length == padding + 1 {
            let needle = self.delimiter.needle()[1..].to_vec();
            self.delimiter = memmem::Finder::new(&needle).into_owned();
        }
        self.buffer.advance(length);
        self.is_first = false;
        self.is_part = true;
        self.head = 0;
        self.lines.clear();
        self.at = LineState::Head;
        Ok(Some(ended))
    }

    /// Reads lines of a head; the head when its empty line has come.
    fn head(&mut self) -> Result<Option<Option<Vec<Vec<u8>>>>, PartFault> {
        let Some(end) = memchr(b'\n', &self.buffer) else {
            return if self.head + self.buffer.len() > PART_HEAD {
                Err(PartFault::HeadTooLarge)
            } else {
                Ok(None)
            };
        };
        let line = self.buffer[..end]
            .strip_suffix(b"\r")
            .unwrap_or(&self.buffer[..end]);
        if line.is_empty() {
            // The empty line's end may be the one that a boundary stands behind.
            self.at = LineState::Bytes(end + 1);
            return Ok(Some(Some(std::mem::take(&mut self.lines))));
        }
        self.head += end + 1;
        match (line[0], self.lines.last_mut()) {
            (b' ' | b'\t', Some(last)) => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ => self.lines.push(line.to_vec()),
        }
        if self.head > PART_HEAD || self.lines.len() > PART_HEADERS {
            return Err(PartFault::HeadTooLarge);
        }
        self.buffer.advance(end + 1);
        Ok(Some(None))
    }

    /// The next bytes of a part; empty ones where a boundary was found, or only its line end was passed.
    fn bytes(&mut self, before: usize) -> Option<Bytes> {
        let length = self.delimiter.needle().len();
        if let Some(at) = self.delimiter.find(&self.buffer) {
            let mut bytes = self.buffer.split_to(at);
            self.buffer.advance(length);
            self.at = LineState::Boundary(before.saturating_sub(at));
            bytes.advance(before.min(at));
            return Some(bytes.freeze());
        }
        let safe = (self.buffer.len() + 1).saturating_sub(length);
        if safe <= before {
            return None;
        }
        let mut bytes = self.buffer.split_to(safe);
        bytes.advance(before);
        self.at = LineState::Bytes(0);
        Some(bytes.freeze())
    }
}

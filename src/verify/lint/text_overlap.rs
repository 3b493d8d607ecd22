//! Overlap of signed texts: a text of one mechanism that may also be a text of another.
//!
//! Where the request chooses the mechanism, a signature over a text of the first is also one over the same text of the
//! second, which may read it differently: a time in front of the body is then part of the body and bounds nothing. So the
//! texts of two mechanisms must begin or end differently. This is judged when they are compiled; texts that do not plainly
//! differ count as the same.

use crate::verify::request::body_kinds::BodyKinds;
use crate::verify::request::field::Field;
use crate::verify::template::{ContentTemplate, Filter, Placeholder, TemplatePart};

/// Known parts of the texts of a mechanism.
pub(crate) struct Known<'k> {
    pub(crate) bodies: &'k BodyKinds,
    /// True if the time is checked, so that it surely is a time.
    pub(crate) timed: bool,
    /// Fields that always have this text.
    pub(crate) fixed: Vec<(Field, Vec<u8>)>,
}

/// A set of bytes, and of the end of a text.
#[derive(Clone, Copy, Default)]
struct Edge([u64; 5]);

const END: usize = 256;

impl Edge {
    const ALL: Self = Self([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 1]);

    fn of(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        bytes.iter().for_each(|byte| all.insert(usize::from(*byte)));
        all
    }

    fn insert(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn holds_end(&self) -> bool {
        self.0[END / 64] != 0
    }

    /// Takes in the bytes of another.
    fn extend(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .take(END / 64)
            .for_each(|(word, other)| *word |= other);
    }

    fn meets(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .any(|(word, other)| word & other != 0)
    }
}

/// A piece of a text, as far as it is known.
enum KnownPiece {
    Text(Vec<u8>),
    /// Something that begins and ends with one of these.
    Within {
        first: Edge,
        last: Edge,
    },
}

/// True if some text may belong to both.
pub(crate) fn may_be_same(
    a: (&ContentTemplate, &Known<'_>),
    b: (&ContentTemplate, &Known<'_>),
) -> bool {
    let (a, b) = (pieces(a.0.parts(), a.1), pieces(b.0.parts(), b.1));
    let apart = |backwards| differ(&cells(&a, backwards), &cells(&b, backwards));
    !apart(false) && !apart(true)
}

/// A byte that is known, or the edge of what is not.
enum Symbol<'p> {
    Byte(u8),
    Edge(&'p Edge),
}

fn cells(pieces: &[KnownPiece], backwards: bool) -> Vec<Symbol<'_>> {
    let mut all: Vec<Symbol<'_>> = Vec::new();
    for piece in pieces {
        match piece {
            KnownPiece::Text(text) => all.extend(text.iter().map(|byte| Symbol::Byte(*byte))),
            KnownPiece::Within { first, last } => {
                all.push(Symbol::Edge(if backwards { last } else { first }))
            }
        }
    }
    if backwards {
        all.reverse();
    }
    all
}

/// True if two texts differ in their known bytes, or in the first byte after them.
fn differ(a: &[Symbol<'_>], b: &[Symbol<'_>]) -> bool {
    let mut at = 0;
    while let (Some(Symbol::Byte(x)), Some(Symbol::Byte(y))) = (a.get(at), b.get(at)) {
        if x != y {
            return true;
        }
        at += 1;
    }
    let (a, b) = (
        begins(a.get(at..).unwrap_or_default()),
        begins(b.get(at..).unwrap_or_default()),
    );
    !a.meets(&b)
}

/// The bytes that a text may begin with.
fn begins(cells: &[Symbol<'_>]) -> Edge {
    let mut all = Edge::default();
    for cell in cells {
        match cell {
            Symbol::Byte(byte) => {
                all.insert(usize::from(*byte));
                return all;
            }
            Symbol::Edge(edge) => {
                all.extend(edge);
                if !edge.holds_end() {
                    return all;
                }
            }
        }
    }
    all.insert(END);
    all
}

fn pieces(parts: &[TemplatePart], known: &Known<'_>) -> Vec<KnownPiece> {
    let within = |first: &[u8], last: &[u8]| KnownPiece::Within {
        first: Edge::of(first),
        last: Edge::of(last),
    };
    let anything = || KnownPiece::Within {
        first: Edge::ALL,
        last: Edge::ALL,
    };
    let one = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => KnownPiece::Text(text.clone()),
        TemplatePart::Value(Placeholder::Field(Field::Body)) if known.bodies.only_json() => {
            within(b"{[ \t\r\n", b"}] \t\r\n")
        }
        TemplatePart::Value(Placeholder::Field(field)) => {
            match known.fixed.iter().find(|(of, _)| of == field) {
                Some((_, text)) => KnownPiece::Text(text.clone()),
                None => anything(),
            }
        }
        TemplatePart::Value(Placeholder::Ts) if known.timed => {
            within(b"0123456789", b"0123456789Zz")
        }
        TemplatePart::Value(Placeholder::Url | Placeholder::UrlBase | Placeholder::UrlWithPort) => {
            KnownPiece::Within {
                first: Edge::of(b"h"),
                last: Edge::ALL,
            }
        }
        TemplatePart::Value(Placeholder::Path) => KnownPiece::Within {
            first: Edge::of(b"/"),
            last: Edge::ALL,
        },
        TemplatePart::Filtered(_, filters) => match filters.last() {
            Some(Filter::Hex) => within(b"0123456789abcdef", b"0123456789abcdef"),
            Some(Filter::Crc32) => within(b"0123456789", b"0123456789"),
            _ => anything(),
        },
        TemplatePart::Value(_) | TemplatePart::Section(_) => anything(),
    };
    parts.iter().map(one).collect()
}

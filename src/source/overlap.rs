//! Whether a text of one way to sign may be a text of another.
//!
//! Where the request chooses between ways, a signature over a text of the first is one over the same text of the second,
//! which may read other things out of it: a time that was in front of the body is then part of the body, and bounds
//! nothing any more. So two ways must differ in what they begin or end with, and that is judged when they are compiled:
//! what is not plainly apart counts as the same.

use super::bodies::Bodies;
use super::content::{Filter, Part, Template, Value};
use super::field::Field;

/// What is known of a way's texts.
pub(super) struct Known<'k> {
    pub(super) bodies: &'k Bodies,
    /// Whether the time is checked, and so is a time.
    pub(super) timed: bool,
    /// Fields that always have this text.
    pub(super) fixed: Vec<(Field, Vec<u8>)>,
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
enum Piece {
    Text(Vec<u8>),
    /// Something that begins and ends with one of these.
    Within {
        first: Edge,
        last: Edge,
    },
}

/// Whether some text is of both.
pub(super) fn may_be_same(a: (&Template, &Known<'_>), b: (&Template, &Known<'_>)) -> bool {
    let (a, b) = (pieces(a.0.parts(), a.1), pieces(b.0.parts(), b.1));
    let apart = |backwards| differ(&cells(&a, backwards), &cells(&b, backwards));
    !apart(false) && !apart(true)
}

/// A byte that is known, or the edge of what is not.
enum Cell<'p> {
    Byte(u8),
    Edge(&'p Edge),
}

fn cells(pieces: &[Piece], backwards: bool) -> Vec<Cell<'_>> {
    let mut all: Vec<Cell<'_>> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => all.extend(text.iter().map(|byte| Cell::Byte(*byte))),
            Piece::Within { first, last } => {
                all.push(Cell::Edge(if backwards { last } else { first }))
            }
        }
    }
    if backwards {
        all.reverse();
    }
    all
}

/// Whether two texts differ where both are known, or in the first byte where one is not.
fn differ(a: &[Cell<'_>], b: &[Cell<'_>]) -> bool {
    let mut at = 0;
    while let (Some(Cell::Byte(x)), Some(Cell::Byte(y))) = (a.get(at), b.get(at)) {
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

/// What a text may begin with.
fn begins(cells: &[Cell<'_>]) -> Edge {
    let mut all = Edge::default();
    for cell in cells {
        match cell {
            Cell::Byte(byte) => {
                all.insert(usize::from(*byte));
                return all;
            }
            Cell::Edge(edge) => {
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

fn pieces(parts: &[Part], known: &Known<'_>) -> Vec<Piece> {
    let within = |first: &[u8], last: &[u8]| Piece::Within {
        first: Edge::of(first),
        last: Edge::of(last),
    };
    let anything = || Piece::Within {
        first: Edge::ALL,
        last: Edge::ALL,
    };
    let one = |part: &Part| match part {
        Part::Text(text) => Piece::Text(text.clone()),
        Part::Value(Value::Field(Field::Body)) if known.bodies.only_json() => {
            within(b"{[ \t\r\n", b"}] \t\r\n")
        }
        Part::Value(Value::Field(field)) => match known.fixed.iter().find(|(of, _)| of == field) {
            Some((_, text)) => Piece::Text(text.clone()),
            None => anything(),
        },
        Part::Value(Value::Ts) if known.timed => within(b"0123456789", b"0123456789Zz"),
        Part::Value(Value::Url | Value::UrlBase | Value::UrlWithPort) => Piece::Within {
            first: Edge::of(b"h"),
            last: Edge::ALL,
        },
        Part::Value(Value::Path) => Piece::Within {
            first: Edge::of(b"/"),
            last: Edge::ALL,
        },
        Part::Filtered(_, filters) => match filters.last() {
            Some(Filter::Hex) => within(b"0123456789abcdef", b"0123456789abcdef"),
            Some(Filter::Crc32) => within(b"0123456789", b"0123456789"),
            _ => anything(),
        },
        Part::Value(_) | Part::Section(_) => anything(),
    };
    parts.iter().map(one).collect()
}

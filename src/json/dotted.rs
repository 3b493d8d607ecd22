//! Dotted paths into JSON: `message.chat.id`, `entry.0.changes.0.value`.

/// A dotted path: `message.chat.id`, `entry.0.changes.0.value`.
///
/// A segment is a key of an object or an index of an array. A key that has dots in it takes several segments at once and
/// wins over shorter keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dotted {
    text: String,
    /// End of each segment in `text`.
    ends: Vec<usize>,
}

/// Most segments of a dotted path.
const SEGMENTS: usize = 127;

impl Dotted {
    /// Splits a path at its dots. The error says why the path is invalid.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.split('.').any(str::is_empty) {
            return Err("a part of it is empty");
        }
        let ends: Vec<usize> = text
            .match_indices('.')
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        if ends.len() > SEGMENTS {
            return Err("it has more than 127 parts");
        }
        Ok(Self {
            text: text.to_owned(),
            ends,
        })
    }

    /// The path to one key of the document itself; dots in the key do not split it.
    pub fn of_key(key: &str) -> Self {
        Self {
            text: key.to_owned(),
            ends: vec![key.len()],
        }
    }

    /// Number of segments.
    pub const fn segments(&self) -> usize {
        self.ends.len()
    }

    /// Number of segments that are followed once `key` is taken at segment `at`; nothing if the key does not match.
    pub fn key(&self, at: usize, key: &str) -> Option<usize> {
        let rest = self.text.get(self.start(at)?..)?;
        if !rest.starts_with(key) {
            return None;
        }
        let end = self.text.len() - rest.len() + key.len();
        self.ends[at..]
            .iter()
            .position(|stop| *stop == end)
            .map(|more| at + more + 1)
    }

    /// Segment `at` as an index of an array.
    pub fn index(&self, at: usize) -> Option<usize> {
        let segment = self.text.get(self.start(at)?..*self.ends.get(at)?)?;
        let plain = segment == "0"
            || (!segment.starts_with('0') && segment.bytes().all(|b| b.is_ascii_digit()));
        if plain { segment.parse().ok() } else { None }
    }

    fn start(&self, at: usize) -> Option<usize> {
        match at {
            0 => Some(0),
            _ if at >= self.ends.len() => None,
            _ => Some(self.ends[at - 1] + 1),
        }
    }
}

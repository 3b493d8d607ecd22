//! A TOML document as a tree in which every key and value knows its place, and layers of such trees.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problems};

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Place of the node.
    pub place: Place,
    /// Value of the node.
    pub value: Value,
}

impl Node {
    fn texts_below<'t>(
        &'t self,
        path: &mut Vec<&'t str>,
        each: &mut impl FnMut(&'t str, &'t Place, &[&'t str]),
    ) {
        match &self.value {
            Value::Table(table) => table.texts_below(path, each),
            Value::List(list) => list.iter().for_each(|node| node.texts_below(path, each)),
            Value::Text(text) => each(text, &self.place, path),
            _ => {}
        }
    }
}

/// Value of a [`Node`].
#[derive(Clone, Debug)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A date or a time, as written.
    Time(String),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Value {
    /// Name of the kind of value in a sentence.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Bool(_) => "true or false",
            Self::Time(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// The entries of a table, in the order of the file.
#[derive(Clone, Debug)]
pub struct Table {
    /// Place at which the table begins.
    pub place: Place,
    /// Key, the key's place, value.
    pub entries: Vec<(String, Place, Node)>,
}

impl Table {
    /// A table with nothing in it.
    pub const fn empty(place: Place) -> Self {
        Self {
            place,
            entries: Vec::new(),
        }
    }

    /// Reads a document. What cannot be read is a problem, and the rest is read all the same.
    pub fn parse(file: &str, text: &str, problems: &Problems) -> Self {
        let reader = Reader {
            file: Arc::from(file),
            lines: line_starts(text),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = reader.place(error.span().map_or(0, |span| span.start));
            problems.error(&place, format!("this is not TOML: {}", error.message()));
        }
        let start = table.span().start;
        reader.table(start, table.get_ref())
    }

    /// A value by the keys that lead to it.
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        let (first, rest) = path.split_first()?;
        match (self.get(first), rest) {
            (found, []) => found,
            (
                Some(Node {
                    value: Value::Table(table),
                    ..
                }),
                rest,
            ) => table.find(rest),
            _ => None,
        }
    }

    /// Hands on every text below, with its place and the keys that lead to it.
    pub fn each_text<'t>(&'t self, each: &mut impl FnMut(&'t str, &'t Place, &[&'t str])) {
        self.texts_below(&mut Vec::new(), each);
    }

    fn texts_below<'t>(
        &'t self,
        path: &mut Vec<&'t str>,
        each: &mut impl FnMut(&'t str, &'t Place, &[&'t str]),
    ) {
        for (key, _, node) in &self.entries {
            path.push(key);
            node.texts_below(path, each);
            path.pop();
        }
    }

    /// A value by key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries
            .iter()
            .find(|(name, ..)| name == key)
            .map(|(.., node)| node)
    }

    /// Lays `over` on top: its values win, tables are laid on tables.
    pub fn lay(&mut self, over: Self) {
        self.place = over.place;
        for (key, place, node) in over.entries {
            match self.entries.iter_mut().find(|(name, ..)| *name == key) {
                Some((_, at, under)) => match (&mut under.value, node.value) {
                    (Value::Table(below), Value::Table(above)) => {
                        *at = place;
                        below.lay(above);
                        under.place = node.place;
                    }
                    (_, value) => {
                        *at = place;
                        *under = Node {
                            place: node.place,
                            value,
                        };
                    }
                },
                None => self.entries.push((key, place, node)),
            }
        }
    }

    /// Sets the value at a dotted path, making tables on the way.
    pub fn set(&mut self, path: &[&str], node: Node) {
        let (first, rest) = match path {
            [] => return,
            [first, rest @ ..] => (*first, rest),
        };
        let value = if rest.is_empty() {
            node
        } else {
            let place = node.place.clone();
            let mut inner = Self::empty(place.clone());
            inner.set(rest, node);
            Node {
                place,
                value: Value::Table(inner),
            }
        };
        let place = value.place.clone();
        self.lay(Self {
            place: self.place.clone(),
            entries: vec![(first.to_owned(), place, value)],
        });
    }
}

struct Reader {
    file: Arc<str>,
    lines: Vec<usize>,
}

impl Reader {
    fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        Place {
            file: self.file.clone(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
        }
    }

    fn table(&self, start: usize, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<(usize, (String, Place, Node))> = table
            .iter()
            .map(|(key, value)| {
                let at = key.span().start;
                (
                    at,
                    (key.get_ref().to_string(), self.place(at), self.node(value)),
                )
            })
            .collect();
        entries.sort_by_key(|(at, _)| *at);
        Table {
            place: self.place(start),
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
        }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let start = value.span().start;
        let place = self.place(start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Integer),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Float),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(list) => Value::List(list.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(start, table)),
        };
        Node { place, value }
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let problems = Problems::default();
        let table = Table::parse("a.toml", "x = 1\n\n[s.t]\ny = [\n 'a',\n 'b']\n", &problems);
        assert!(!problems.any_error());
        let Some(Node {
            value: Value::Table(s),
            ..
        }) = table.get("s")
        else {
            panic!("no s")
        };
        let Some(Node {
            value: Value::Table(t),
            place,
        }) = s.get("t")
        else {
            panic!("no t")
        };
        assert_eq!(place.line, 3);
        let Some(Node {
            value: Value::List(list),
            place,
        }) = t.get("y")
        else {
            panic!("no y")
        };
        assert_eq!((place.line, list[1].place.line), (4, 6));
    }

    #[test]
    fn all_syntax_errors_come_at_once() {
        let problems = Problems::default();
        Table::parse("a.toml", "x = \ny = 2\nz = [1\nw = 1\n", &problems);
        assert!(problems.any_error());
    }

    #[test]
    fn a_layer_wins_key_by_key() {
        let problems = Problems::default();
        let mut base = Table::parse("base", "[a]\nx = 1\ny = 1\n", &problems);
        base.lay(Table::parse("over", "[a]\ny = 2\n", &problems));
        let Some(Node {
            value: Value::Table(a),
            ..
        }) = base.get("a")
        else {
            panic!("no a")
        };
        assert!(matches!(
            a.get("x"),
            Some(Node {
                value: Value::Integer(1),
                ..
            })
        ));
        assert!(
            matches!(a.get("y"), Some(Node { value: Value::Integer(2), place }) if &*place.file == "over")
        );
    }
}

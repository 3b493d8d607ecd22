//! Problems of a configuration: each has a place, a sentence and a hint. They are collected and reported together.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// Place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the operator named it, or what stands for it: `default settings`, `environment`.
    pub file: Arc<str>,
    /// The line, from 1; 0 where lines mean nothing.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}", self.file, self.line)
        }
    }
}

/// A value and the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Place at which the value was written.
    pub place: Place,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            value: change(self.value),
            place: self.place,
        }
    }
}

impl<T> std::ops::Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing starts with it.
    Error,
    /// It runs, but the operator should know.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Severity.
    pub weight: Weight,
    /// Place of the problem.
    pub place: Place,
    /// The problem in a sentence.
    pub what: String,
    /// Hint for the operator, where one is known.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        write!(f, "{}: {weight}: {}", self.place, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    {hint}"),
            None => Ok(()),
        }
    }
}

/// The problems found so far. Handed by reference to everything that reads configuration.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes something that nothing starts with.
    pub fn error(&self, place: &Place, what: impl Into<String>) {
        self.push(Weight::Error, place, what.into(), None);
    }

    /// The same, and what to do.
    pub fn error_hint(&self, place: &Place, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Weight::Error, place, what.into(), Some(hint.into()));
    }

    /// Notes something the operator should know.
    pub fn warn(&self, place: &Place, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Weight::Warning, place, what.into(), Some(hint.into()));
    }

    fn push(&self, weight: Weight, place: &Place, what: String, hint: Option<String>) {
        self.0.borrow_mut().push(Problem {
            weight,
            place: place.clone(),
            what,
            hint,
        });
    }

    /// Notes what was found elsewhere.
    pub(super) fn add(&self, found: &[Problem]) {
        self.0.borrow_mut().extend_from_slice(found);
    }

    /// True if a problem prevents the start.
    pub fn any_error(&self) -> bool {
        self.0.borrow().iter().any(|p| p.weight == Weight::Error)
    }

    /// All of them, in the order of the files.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.0.into_inner();
        list.sort_by(|a, b| a.place.cmp(&b.place));
        // The same may have been found twice with something else between.
        let mut once: Vec<Problem> = Vec::with_capacity(list.len());
        for problem in list {
            let same = |known: &&Problem| known.place == problem.place;
            if !once
                .iter()
                .rev()
                .take_while(same)
                .any(|known| *known == problem)
            {
                once.push(problem);
            }
        }
        once
    }
}

//! The language of the code, as far as a test can read it: heads and docs that say what a thing is, type names that occur
//! once, and numbers in test names that have a row in `docs/threats.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::layers::files;

/// Words that begin a question. A doc that begins with one makes its reader wait for the noun.
const QUESTIONS: [&str; 8] = [
    "What", "How", "Whether", "Where", "Who", "Whose", "Which", "When",
];

/// Type names that occur more than once, with the reason. Every other name occurs once in the crate.
const TWICE: [(&str, &str); 4] = [
    (
        "Answer",
        "a kept answer of a run; an answer of the stand-in",
    ),
    (
        "Place",
        "a line of a configuration file; a place among calls in flight",
    ),
    ("Pool", "places for uploads; kept connections"),
    ("Server", "a server in an address; the section [server]"),
];

/// Modules that are not in plain words yet: the rule that they break, and how many places break it at most. The numbers
/// only fall.
const LEFT: [(&str, &str, usize); 6] = [
    ("is none", "config", 1),
    ("is none", "inbox", 1),
    ("is none", "ingress", 1),
    ("is none", "mapping", 1),
    ("short doc", "config", 1),
    ("short doc", "inbox", 3),
];

/// A source file without its tests.
pub struct Source {
    /// Its path below `src`.
    pub name: String,
    pub lines: Vec<String>,
}

impl Source {
    /// The folder or file below `src` that it belongs to.
    pub fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    pub fn place(&self, index: usize) -> String {
        format!(
            "src/{}:{}: {}",
            self.name,
            index + 1,
            self.lines[index].trim()
        )
    }
}

/// Every file of `src` that is part of the product.
pub fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all: Vec<(PathBuf, String)> = files(&src)
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source file");
            (file, text)
        })
        .collect();
    let tests: BTreeSet<PathBuf> = all
        .iter()
        .flat_map(|(file, text)| test_modules(file, text))
        .collect();
    let is_test = |file: &Path| {
        tests
            .iter()
            .any(|test| file == test.with_extension("rs") || file.starts_with(test))
    };
    let found: Vec<Source> = all
        .iter()
        .filter(|(file, _)| !is_test(file))
        .map(|(file, text)| Source {
            name: file
                .strip_prefix(&src)
                .expect("below src")
                .to_string_lossy()
                .into_owned(),
            lines: product_lines(text),
        })
        .collect();
    assert!(found.len() > 200, "saw {} files", found.len());
    found
}

/// The modules that a file declares for tests alone, each as a path without an extension.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let is_folder = file
        .file_name()
        .is_some_and(|name| name == "mod.rs" || name == "lib.rs" || name == "main.rs");
    let folder = if is_folder {
        file.parent().expect("a folder").to_owned()
    } else {
        file.with_extension("")
    };
    let mut found = Vec::new();
    let mut is_for_tests = false;
    for line in text.lines().map(str::trim) {
        if line == "#[cfg(test)]" {
            is_for_tests = true;
        } else if !line.starts_with("#[") {
            if let (true, Some(name)) = (is_for_tests, module_name(line)) {
                found.push(folder.join(name));
            }
            is_for_tests = false;
        }
    }
    found
}

/// The name in `mod name;`, whatever stands before it.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// The lines of a file, those of a `#[cfg(test)] mod … { … }` left empty.
fn product_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut index = 0;
    while index + 1 < lines.len() {
        let opens = lines[index + 1].trim_end().ends_with('{') && lines[index + 1].contains("mod ");
        if lines[index].trim() == "#[cfg(test)]" && opens {
            let indent = lines[index].len() - lines[index].trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            while index < lines.len() && lines[index] != end {
                lines[index].clear();
                index += 1;
            }
        }
        index += 1;
    }
    lines
}

/// Fails unless each module has as many places that break a rule as `LEFT` grants it: fewer are a reason to lower the number.
fn judge(rule: &str, places: &[(&Source, String)]) {
    let mut by_module: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, module, _) in LEFT.iter().filter(|(of, ..)| *of == rule) {
        by_module.insert(module, Vec::new());
    }
    for (source, place) in places {
        by_module.entry(source.module()).or_default().push(place);
    }
    let wrong: Vec<String> = by_module
        .iter()
        .filter_map(|(module, places)| {
            let row = LEFT
                .iter()
                .find(|(of, left, _)| *of == rule && left == module);
            let granted = row.map_or(0, |(_, _, granted)| *granted);
            let (found, list) = (places.len(), places.join("\n  "));
            (found != granted)
                .then(|| format!("{module} has {found} and may have {granted}:\n  {list}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// Whether a line has "is none" or "are none" in its text. `is_none` is a method.
fn says_none(line: &str) -> bool {
    let words: Vec<&str> = line
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .any(|pair| matches!(pair, ["is" | "are", "none"]))
}

/// A file and the place in it.
type Finding<'s> = (&'s Source, String);

#[test]
fn no_sentence_says_that_something_is_none() {
    let sources = sources();
    let mut found = Vec::new();
    for source in &sources {
        for (index, line) in source.lines.iter().enumerate() {
            if says_none(line) {
                found.push((source, source.place(index)));
            }
        }
    }
    judge("is none", &found);
}

#[test]
fn no_file_begins_with_a_question() {
    let sources = sources();
    let mut found = Vec::new();
    for source in &sources {
        let head = source
            .lines
            .first()
            .and_then(|line| line.strip_prefix("//! "));
        let first = head.and_then(|text| text.split_whitespace().next());
        if first.is_some_and(|word| QUESTIONS.contains(&word)) {
            found.push((source, source.place(0)));
        }
    }
    judge("head", &found);
}

/// The blocks of `///` in a file: the index of the first line, the words, and the line that is documented.
fn docs(source: &Source) -> Vec<(usize, String, &str)> {
    let lines = &source.lines;
    let text = |index: usize| lines[index].trim().strip_prefix("///");
    let mut found = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let begin = index;
        let mut words = String::new();
        while let Some(more) = lines.get(index).and_then(|_| text(index)) {
            words.push_str(more);
            index += 1;
        }
        if index > begin {
            let item = lines[index..]
                .iter()
                .map(|line| line.trim())
                .find(|line| !line.starts_with("#["));
            found.push((begin, words.trim().to_owned(), item.unwrap_or_default()));
        }
        index += 1;
    }
    found
}

/// Whether a line begins a function.
fn is_function(line: &str) -> bool {
    let before = line.split_once("fn ").map(|(before, _)| before);
    before.is_some_and(|before| {
        before.split_whitespace().all(|word| {
            matches!(word, "pub" | "async" | "const" | "unsafe" | "extern")
                || word.starts_with("pub(")
        })
    })
}

#[test]
fn no_function_is_described_by_one_or_two_words() {
    let sources = sources();
    let mut found = Vec::new();
    for source in &sources {
        for (index, words, item) in docs(source) {
            if is_function(item) && words.split_whitespace().count() <= 2 {
                found.push((source, source.place(index)));
            }
        }
    }
    judge("short doc", &found);
}

#[test]
fn fewer_than_a_tenth_of_a_modules_docs_begin_with_a_question() {
    let sources = sources();
    let mut counted = BTreeMap::<&str, (usize, Vec<Finding<'_>>)>::new();
    for source in &sources {
        for (index, words, _) in docs(source) {
            let (all, questions) = counted.entry(source.module()).or_default();
            *all += 1;
            let first = words.split_whitespace().next();
            if first.is_some_and(|word| QUESTIONS.contains(&word)) {
                questions.push((source, source.place(index)));
            }
        }
    }
    let all: usize = counted.values().map(|(all, _)| all).sum();
    assert!(all > 3_000, "saw {all} docs");
    let found: Vec<(&Source, String)> = counted
        .into_values()
        .filter(|(all, questions)| questions.len() * 10 >= *all)
        .flat_map(|(_, questions)| questions)
        .collect();
    judge("question doc", &found);
}

/// The name of a struct, an enum, a trait or a type that begins on this line. Associated types are not meant.
fn type_name(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| matches!(*word, "struct" | "enum" | "trait" | "union" | "type"))?;
    let is_plain = words[..at]
        .iter()
        .all(|word| word.starts_with("pub") || *word == "unsafe");
    let is_inner = words[at] == "type" && line.starts_with(' ');
    let name = words.get(at + 1)?;
    let end = name
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    (is_plain && !is_inner && end > 0).then(|| &name[..end])
}

#[test]
fn a_type_name_occurs_once_in_the_crate() {
    let sources = sources();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in &sources {
        for (index, line) in source.lines.iter().enumerate() {
            if let Some(name) = type_name(line) {
                places.entry(name).or_default().push(source.place(index));
            }
        }
    }
    assert!(places.len() > 500, "saw {} types", places.len());
    // The two engines of the inbox have the same rooms, and so the same names in them.
    let is_twin = |places: &[String]| {
        let engine = |name: &str| {
            let folder = format!("src/inbox/{name}/");
            places
                .iter()
                .filter(|place| place.starts_with(&folder))
                .count()
        };
        places.len() == 2 && engine("sqlite") == 1 && engine("postgres") == 1
    };
    let is_allowed = |name: &str| TWICE.iter().any(|(allowed, _)| *allowed == name);
    let wrong: Vec<String> = places
        .iter()
        .filter(|(name, places)| places.len() > 1 && !is_twin(places) && !is_allowed(name))
        .map(|(name, places)| format!("{name}:\n  {}", places.join("\n  ")))
        .collect();
    assert!(
        wrong.is_empty(),
        "names of several types:\n{}",
        wrong.join("\n")
    );
    for (name, reason) in TWICE {
        assert!(
            reason.contains(';'),
            "{name} has no reason that tells its types apart"
        );
    }
}

/// The rows of `docs/threats.md`, in its order: `T1`, `F4` and so on.
fn rows() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threats.md");
    let page = fs::read_to_string(page).expect("the page is there");
    page.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| {
            cell.starts_with(['T', 'F', 'A', 'S'])
                && cell[1..].bytes().all(|byte| byte.is_ascii_digit())
        })
        .filter(|cell| cell.len() > 1)
        .map(str::to_owned)
        .collect()
}

/// The numbers that a test's name begins with: `t1_to_t3_…` has three, `t7_f2_…` has two.
fn numbers(name: &str) -> Vec<String> {
    let number = |word: &str| {
        let (kind, digits) = word.split_at_checked(1)?;
        let value: u32 = digits.parse().ok()?;
        matches!(kind, "t" | "f" | "a" | "s").then(|| (kind.to_uppercase(), value))
    };
    let mut found: Vec<(String, u32)> = Vec::new();
    let mut words = name.split('_').peekable();
    while let Some(word) = words.next() {
        let end = words.peek().copied().and_then(number);
        match (number(word), found.last().cloned()) {
            (Some(one), _) => found.push(one),
            (None, Some((kind, first))) if word == "to" && end.is_some() => {
                let last = end.map_or(first, |(_, last)| last);
                found.extend((first + 1..last).map(|value| (kind.clone(), value)));
            }
            _ => break,
        }
    }
    found
        .into_iter()
        .map(|(kind, value)| format!("{kind}{value}"))
        .collect()
}

/// Every number in the name of a test, and every one that a script of `tests/` names at its head.
fn tried() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for file in [files(&root.join("src")), files(&root.join("tests/it"))].concat() {
        let text = fs::read_to_string(file).expect("a source file");
        let names = text.lines().filter_map(|line| line.split_once("fn "));
        found.extend(
            names.flat_map(|(_, rest)| numbers(rest.split('(').next().unwrap_or_default())),
        );
    }
    for script in ["run", "power-cut", "sync-order"] {
        let text = fs::read_to_string(root.join("tests").join(script)).expect("a script");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        found.extend(
            words
                .filter(|word| matches!(*word, "T108" | "F2" | "F3"))
                .map(str::to_owned),
        );
    }
    found
}

#[test]
fn each_number_in_a_test_name_is_a_row_in_the_page_of_threats_and_each_row_is_tried() {
    let rows = rows();
    let known: BTreeSet<String> = rows.iter().cloned().collect();
    assert!(rows.len() > 100, "saw {} rows", rows.len());
    assert_eq!(rows.len(), known.len(), "a row stands twice: {rows:?}");
    let tried = tried();
    let unknown: Vec<&String> = tried.difference(&known).collect();
    assert!(unknown.is_empty(), "no row in docs/threats.md: {unknown:?}");
    let untried: Vec<&String> = known.difference(&tried).collect();
    assert!(
        untried.is_empty(),
        "rows that no test is named after: {untried:?}"
    );
}

#[test]
fn the_search_sees_what_it_is_to_see() {
    assert!(says_none("the request line is none") && says_none("those that are none."));
    assert!(!says_none("if value.is_none() {") && !says_none("this none of them"));
    assert!(is_function("pub(super) async fn get(") && is_function("const fn one() {"));
    assert!(!is_function("let f = fn_of(x);") && !is_function("pub struct Fn;"));
    assert_eq!(type_name("pub(crate) struct Held<'a> {"), Some("Held"));
    assert_eq!(type_name("enum One {"), Some("One"));
    assert_eq!(type_name("    type Item = u8;"), None);
    assert_eq!(type_name("    /// a type of body"), None);
    assert_eq!(numbers("t1_to_t3_framing"), ["T1", "T2", "T3"]);
    assert_eq!(numbers("f1_f21_three"), ["F1", "F21"]);
    assert_eq!(numbers("a_list_of_two").len() + numbers("to_t3_x").len(), 0);
    let text = "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n    // it is none\n}\nfn b() {}";
    assert_eq!(product_lines(text).concat(), "//! xfn a() {}}fn b() {}");
    let file = Path::new("src/a/mod.rs");
    let found = test_modules(file, "#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nmod more;");
    assert_eq!(found, [PathBuf::from("src/a/tests")]);
}

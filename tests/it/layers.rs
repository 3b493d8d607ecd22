//! The order of the modules, and the homes of libraries, statuses and I/O, as `docs/ARCHITECTURE.md` describes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::words::sources;

#[test]
fn a_module_uses_only_what_is_listed_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = modules();
    assert!(order.len() >= 12, "lib.rs lists the modules: {order:?}");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in files(&src) {
        let inside = file.strip_prefix(&src).expect("below src");
        let module = inside
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy();
        let module = module.trim_end_matches(".rs");
        let Some(own) = order.iter().position(|name| name == module) else {
            assert!(
                matches!(module, "lib" | "main"),
                "{} is in no module of lib.rs",
                inside.display()
            );
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            // Names in documentation may point up.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in crate_paths(line) {
                seen += 1;
                match order.iter().position(|name| *name == used) {
                    Some(other) if other < own => {
                        wrong.push(format!(
                            "{}:{}: {module} uses {used}",
                            inside.display(),
                            number + 1
                        ));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(seen > 50, "the search finds imports: {seen}");
    assert!(
        wrong.is_empty(),
        "imports that run up:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_proof_of_origin_reads_no_file_no_socket_and_no_clock() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verify");
    let outside = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::time::Instant",
        "SystemTime",
        "tokio::",
        "hyper::",
        "crate::net",
        "Clock",
        "async fn",
        ".await",
    ];
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files(&src) {
        let inside = file.strip_prefix(&src).expect("below src/verify");
        if inside.starts_with("tests") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let product = text.split("#[cfg(test)]\nmod tests {").next();
        let lines = product.unwrap_or_default().lines().enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            seen += 1;
            let found = outside.iter().filter(|word| line.contains(**word));
            wrong.extend(found.map(|word| format!("{}:{}: {word}", inside.display(), number + 1)));
        }
    }
    assert!(seen > 3000, "the search reads the module: {seen} lines");
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

/// The modules of `lib.rs`, in its order.
fn modules() -> Vec<String> {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let map = fs::read_to_string(map).expect("lib.rs is there");
    map.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// The modules that a line names as `crate::module`, also in a list: `use crate::{config, model::Clock};`.
fn crate_paths(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let name = |text: &str| {
            text.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0_u32;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            found.push(name(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => found.push(name(rest)),
        }
    }
    found
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
    all
}

#[test]
fn the_search_for_imports_sees_lists() {
    assert_eq!(
        crate_paths("use crate::{config::{self, Config}, model};"),
        ["config", "model"]
    );
    assert_eq!(
        crate_paths("let x = crate::net::Client::new(crate::config::y);"),
        ["net", "config"]
    );
}

/// Libraries that belong to some modules alone: SQL is the inbox's, templates are the mapping's, and so on. A library of
/// `Cargo.toml` stands here or in `EVERYWHERE`.
const HOMES: [(&str, &[&str]); 36] = [
    ("anyhow", &["app", "cli"]),
    ("axum", &["admin", "app", "ingress"]),
    ("clap", &["cli"]),
    ("deadpool_postgres", &["inbox"]),
    ("encoding_rs", &["text"]),
    ("flate2", &["verify"]),
    ("governor", &["limit"]),
    ("http_body", &["ingress", "net", "stub"]),
    ("httparse", &["net"]),
    ("hyper_rustls", &["net"]),
    ("hyper_util", &["net", "stub"]),
    ("ipnet", &["model"]),
    ("jsonpath_rust", &["mapping"]),
    ("md5", &["verify"]),
    ("mimalloc", &["main"]),
    ("minijinja", &["mapping"]),
    ("num_bigint", &["verify"]),
    ("object_store", &["attachment"]),
    ("p256", &["verify"]),
    ("prometheus", &["telemetry"]),
    ("pulldown_cmark", &["render"]),
    ("regex", &["channel", "verify"]),
    ("rusqlite", &["inbox"]),
    ("rustls", &["inbox", "net"]),
    ("sha1", &["verify"]),
    ("tokio_postgres", &["inbox"]),
    ("tokio_rustls", &["inbox", "net"]),
    ("toml", &["config"]),
    ("tower", &["admin", "ingress", "net"]),
    ("tower_http", &["admin"]),
    ("tracing_subscriber", &["telemetry"]),
    ("unicode_normalization", &["model"]),
    ("unicode_segmentation", &["render"]),
    ("webpki_roots", &["inbox", "net"]),
    ("x509_cert", &["model"]),
    ("zeroize", &["config"]),
];

/// Libraries for any module: bytes, text, errors, tasks.
const EVERYWHERE: [&str; 27] = [
    "arc_swap",
    "async_trait",
    "base64",
    "bytes",
    "fastrand",
    "form_urlencoded",
    "futures_util",
    "hex",
    "hmac",
    "http",
    "http_body_util",
    "hyper",
    "jiff",
    "memchr",
    "parking_lot",
    "percent_encoding",
    "ring",
    "rustix",
    "serde",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "tokio",
    "tokio_util",
    "tracing",
    "uuid",
];

/// The names of the libraries in `Cargo.toml` that the product links, as paths begin with them.
fn libraries() -> Vec<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("the manifest is there");
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies") && !table.contains("dev-");
            if let Some((before, name)) = table.rsplit_once("dependencies.")
                && !before.contains("dev-")
            {
                found.push(name.to_owned());
            }
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            let name = name.trim();
            let is_name = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            if is_name && !name.is_empty() && !line.starts_with(' ') {
                found.push(name.to_owned());
            }
        }
    }
    found
        .iter()
        .map(|name| match name.as_str() {
            "md-5" => "md5".to_owned(),
            name => name.replace('-', "_"),
        })
        .collect()
}

/// Whether a line of code names a library at the beginning of a path.
fn names_library(line: &str, library: &str) -> bool {
    let code = line.trim_start();
    if code.starts_with("//") {
        return false;
    }
    line.match_indices(library).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = &line[at + library.len()..];
        let is_whole =
            before.is_none_or(|c| !(c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.'));
        let is_path = behind.starts_with("::");
        let is_use =
            code.starts_with("use ") && (behind.starts_with(';') || behind.starts_with(" as "));
        is_whole && (is_path || is_use)
    })
}

#[test]
fn a_library_is_used_in_its_homes_and_nowhere_else() {
    let libraries = libraries();
    assert!(libraries.len() > 40, "saw {libraries:?}");
    let homes = |library: &str| {
        HOMES
            .iter()
            .find(|(name, _)| *name == library)
            .map(|(_, homes)| *homes)
    };
    for library in &libraries {
        assert!(
            homes(library).is_some() != EVERYWHERE.contains(&library.as_str()),
            "{library} has to stand in one of HOMES and EVERYWHERE"
        );
    }
    let sources = sources();
    let mut wrong = Vec::new();
    for (library, homes) in HOMES {
        let mut used = Vec::new();
        for source in &sources {
            for (index, line) in source.lines.iter().enumerate() {
                if names_library(line, library) {
                    used.push(source.module());
                    if !homes.contains(&source.module()) {
                        wrong.push(format!("{library}: {}", source.place(index)));
                    }
                }
            }
        }
        for home in homes {
            assert!(
                used.contains(home),
                "{home} does not use {library} any more"
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "libraries away from home:\n{}",
        wrong.join("\n")
    );
}

/// Files that choose the status of an answer of ours. Others give reasons, and these turn them into statuses.
const STATUSES: [&str; 17] = [
    "admin/enrolment.rs",
    "admin/error.rs",
    "admin/health.rs",
    "admin/job.rs",
    "admin/layers.rs",
    "admin/replay.rs",
    "admin/resend.rs",
    "ingress/acknowledge.rs",
    "ingress/challenge.rs",
    "ingress/dropin/call.rs",
    "ingress/file.rs",
    "ingress/proxy/mod.rs",
    "ingress/proxy/passage.rs",
    "ingress/refusal_terms.rs",
    "ingress/relay.rs",
    "ingress/status.rs",
    "ingress/wait.rs",
];

#[test]
fn statuses_of_our_answers_are_chosen_in_few_files() {
    let sources = sources();
    let mut found = Vec::new();
    for source in &sources {
        let is_door = matches!(source.module(), "ingress" | "admin" | "intake" | "run");
        let chooses = source
            .lines
            .iter()
            .any(|line| !line.trim_start().starts_with("//") && line.contains("StatusCode::"));
        if is_door && chooses {
            found.push(source.name.as_str());
        }
    }
    found.sort_unstable();
    assert_eq!(found, STATUSES);
}

/// Rooms without I/O and without a clock: what they need comes in. Each with the files that may wait for an answer.
const PURE: [(&str, &[&str]); 10] = [
    ("channel/", &[]),
    ("mapping/", &[]),
    (
        "verify/",
        &["verify/forward_auth.rs", "verify/keys/certificate.rs"],
    ),
    ("text/", &[]),
    ("json/", &[]),
    ("dispatch/verdict.rs", &[]),
    ("dispatch/backoff.rs", &[]),
    ("dispatch/run_identity.rs", &[]),
    ("inbox/overlap.rs", &[]),
    ("inbox/transition.rs", &[]),
];

/// Words of I/O and of clocks.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::env",
    "std::process",
    "tokio::fs",
    "tokio::net",
    "tokio::time",
    "TcpStream",
    "SystemTime",
    "Instant",
    "Clock",
];

#[test]
fn pure_rooms_do_no_io_and_read_no_clock() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (room, waiting) in PURE {
        let files: Vec<_> = sources
            .iter()
            .filter(|source| source.name.starts_with(room))
            .collect();
        assert!(!files.is_empty(), "{room} is not there");
        for source in files {
            for (index, line) in source.lines.iter().enumerate() {
                let is_comment = line.trim_start().starts_with("//");
                let mut words = IMPURE.iter().filter(|word| line.contains(**word));
                if !is_comment && !waiting.contains(&source.name.as_str()) && words.next().is_some()
                {
                    wrong.push(source.place(index));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "I/O or a clock in a pure room:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_search_for_libraries_sees_paths_and_imports() {
    assert!(names_library("use hmac::{Hmac, Mac};", "hmac"));
    assert!(names_library("    let x = hmac::Hmac::new();", "hmac"));
    assert!(names_library("use regex;", "regex"));
    assert!(!names_library("use crate::hmac::X;", "hmac"));
    assert!(!names_library("/// see hmac::Hmac", "hmac"));
    assert!(!names_library("use hyper_util::rt;", "hyper"));
}

/// A section of `docs/ARCHITECTURE.md`, by its number.
fn section(number: usize) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let begin = format!("\n## {number}. ");
    let (_, rest) = page.split_once(&begin).expect("the section is there");
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The first cells of the rows of a table.
fn first_cells(text: &str) -> Vec<&str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(" |").next())
        .skip(1)
        .collect()
}

#[test]
fn the_architecture_page_lists_the_rooms_in_their_order() {
    let page = section(2);
    let rooms: Vec<&str> = first_cells(&page)
        .into_iter()
        .map(|cell| cell.trim_matches('`'))
        .collect();
    assert_eq!(rooms, modules());
}

#[test]
fn the_vocabulary_has_only_words_that_the_code_has() {
    let sources = sources();
    let code: String = sources
        .iter()
        .flat_map(|source| &source.lines)
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.to_lowercase() + "\n")
        .collect();
    let words: std::collections::BTreeSet<&str> =
        code.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let page = section(4);
    let mut seen = 0;
    for word in first_cells(&page).iter().flat_map(|cell| cell.split(" / ")) {
        seen += 1;
        assert!(
            words.contains(word.to_lowercase().as_str()),
            "no code has the word {word}"
        );
    }
    assert!(seen > 20, "saw {seen} words");
}

#[test]
fn the_files_that_the_architecture_page_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for number in [1, 3, 6] {
        let page = section(number);
        for name in page.split('`').skip(1).step_by(2) {
            let is_file = name.contains('/') && name.ends_with(".rs");
            if is_file && !name.contains(' ') {
                seen += 1;
                let is_there = root.join(name).exists() || root.join("src").join(name).exists();
                assert!(is_there, "section {number} names {name}");
            }
        }
    }
    assert!(seen > 10, "saw {seen} files");
}

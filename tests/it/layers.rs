//! Imports run down the order of `lib.rs`: a module uses only what is listed below it.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_module_uses_only_what_is_listed_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(src.join("lib.rs")).expect("lib.rs is there");
    let order: Vec<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
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
fn the_tree_in_the_architecture_page_names_every_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the page is there");
    let named: Vec<&str> = page
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for file in [files(&root.join("src")), files(&root.join("tests/it"))].concat() {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let shown = named.contains(&name.as_str()) || matches!(name.as_str(), "mod.rs" | "main.rs");
        assert!(
            shown,
            "{} is not in docs/ARCHITECTURE.md, section 2",
            file.display()
        );
    }
    let gone: Vec<&&str> = named
        .iter()
        .filter(|name| name.ends_with(".rs") && !exists(root, name))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/ARCHITECTURE.md names files that are not there: {gone:?}"
    );
}

fn exists(root: &Path, name: &str) -> bool {
    [files(&root.join("src")), files(&root.join("tests/it"))]
        .concat()
        .iter()
        .any(|file| file.ends_with(name))
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

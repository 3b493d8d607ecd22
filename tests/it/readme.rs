//! Every command and every configuration of the README and of `docs/` does what the text says.

use std::path::Path;
use std::process::Command;

use crate::world::{authority, binary};

pub fn text(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("it is there")
}

/// The fenced blocks of a language; those of a list's items without their indent.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    // The block that is open: its indent, and its text where it is of the language.
    let mut open: Option<(usize, Option<String>)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(word)) => open = Some((indent, (word == language).then(String::new))),
            (Some(_), Some(_)) => found.extend(open.take().and_then(|(_, block)| block)),
            (Some((indent, Some(block))), None) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            (Some((_, None)) | None, None) => {}
        }
    }
    found
}

#[test]
fn every_configuration_of_the_readme_passes_the_check() {
    let blocks = [
        blocks(&text("README.md"), "toml"),
        blocks(&text("docs/reconcile.md"), "toml"),
    ]
    .concat();
    assert!(blocks.len() >= 6, "saw {} configurations", blocks.len());
    let head = "[upstream]\nbase_url = \"https://api.xpander.ai\"\n";
    for block in blocks {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sluicegate.toml");
        let whole = if block.contains("[upstream]") {
            block.clone()
        } else {
            format!("{head}{block}")
        };
        std::fs::write(&file, whole).expect("a file");
        let output = Command::new(binary())
            .args(["check", "--config"])
            .arg(&file)
            // The first recipe is an example to follow: it draws no warning.
            .args(block.contains("[upstream]").then_some("--deny-warnings"))
            .envs([
                ("XPANDER_API_KEY", "upstream-key-of-the-readme"),
                ("GITHUB_WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
                ("TELEGRAM_SECRET_TOKEN", "0123456789abcdef"),
                ("TELEGRAM_BOT_TOKEN", "123456:token-of-the-readme"),
                (
                    "STRIPE_WEBHOOK_SECRET",
                    "whsec_0123456789abcdef0123456789abcdef",
                ),
                ("GITHUB_TOKEN", "token-of-the-readme"),
                ("STRIPE_API_KEY", "rk_token-of-the-readme"),
                ("CI_WEBHOOK_SECRET", "0123456789abcdef"),
                ("INVOICES_SECRET", "0123456789abcdef"),
                ("CI_GATEWAY_KEY", "0123456789abcdef0123456789abcdef"),
            ])
            .output()
            .expect("check runs");
        assert!(
            output.status.success(),
            "{block}\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn every_verify_table_and_provider_file_of_the_provider_page_passes_the_check() {
    let page = text("docs/providers.md");
    let folder = tempfile::tempdir().expect("a folder");
    let providers = folder.path().join("providers");
    std::fs::create_dir(&providers).expect("a folder");
    let mut config =
        "[providers]\nfolder = \"providers\"\n[upstream]\nbase_url = \"https://api.xpander.ai\"\n"
            .to_owned();
    let mut seen = (0, 0);
    for block in blocks(&page, "toml") {
        if block.starts_with("verify = ") {
            seen.0 += 1;
            let head = format!(
                "[sources.s{}]\nprovider = \"custom\"\nagent = \"a\"",
                seen.0
            );
            config.push_str(&format!(
                "{head}\nsecrets = [\"literal:0123456789abcdef\"]\n{block}"
            ));
        } else if block.contains("[verify]") {
            seen.1 += 1;
            std::fs::write(providers.join("example.toml"), &block).expect("a file");
            let head = "[sources.example]\nprovider = \"example\"\nagent = \"a\"";
            config.push_str(&format!(
                "{head}\nsecrets = [\"literal:0123456789abcdef\"]\n"
            ));
        }
    }
    assert!(seen.0 >= 3 && seen.1 >= 1, "saw {seen:?}");
    let file = folder.path().join("sluicegate.toml");
    std::fs::write(&file, config).expect("a file");
    let output = Command::new(binary())
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .expect("check runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn every_command_of_the_readme_exists() {
    let mut commands = 0;
    for file in [
        "README.md",
        "docs/delivery.md",
        "docs/mapping.md",
        "docs/operating.md",
        "docs/reconcile.md",
        "docs/scaling.md",
    ] {
        for block in blocks(&text(file), "sh") {
            for line in block
                .lines()
                .filter_map(|line| line.strip_prefix("sluicegate "))
            {
                let words: Vec<&str> = line
                    .split_whitespace()
                    .take_while(|word| !names_something(word))
                    .collect();
                let output = Command::new(binary())
                    .args(&words)
                    .arg("--help")
                    .output()
                    .expect("it runs");
                assert!(output.status.success(), "sluicegate {line}");
                commands += 1;
            }
        }
    }
    assert!(commands >= 5, "saw {commands} commands");
    // The first run, as it is pasted; the binary is built by then.
    assert!(text("README.md").contains("cargo run --release -- demo"));
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/run")
            .exists()
    );
}

/// A comment, an id that stands for any, or the end of what the program is given.
fn names_something(word: &str) -> bool {
    ["#", ">", "'", "\"", "evt_", "dlv_"]
        .iter()
        .any(|start| word.starts_with(start))
}

#[test]
fn every_page_that_is_linked_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).expect("the folder is there");
    let pages = pages.map(|page| {
        format!(
            "docs/{}",
            page.expect("a page").file_name().to_string_lossy()
        )
    });
    // A heading's anchor: its letters in lower case, dashes for blanks, and nothing else.
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            .collect::<String>()
    };
    for file in pages.chain(["README.md".to_owned()]) {
        let folder = root.join(&file).parent().expect("a folder").to_owned();
        for link in text(&file)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (page, place) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let page = if page.is_empty() {
                root.join(&file)
            } else {
                folder.join(page)
            };
            assert!(page.exists(), "{file} links {link}");
            if !place.is_empty() {
                let text = std::fs::read_to_string(&page).expect("a text");
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|known| known == place);
                assert!(found, "{file} links {link}, and there is no such heading");
            }
        }
    }
}

#[test]
fn default_toml_names_every_setting_it_documents() {
    // The defaults are the base layer of every configuration, so a key that is not known fails every check; what is
    // commented out must be known as well.
    let defaults = text("config/default.toml");
    let uncommented: String = defaults
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.contains(" = ") && !rest.contains("Times are") || rest.starts_with('[') =>
            {
                rest
            }
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.toml");
    let text: String = uncommented
        .replace("ca_file = \"\"", "")
        .replace("folder = \"\"", "");
    std::fs::write(&file, text).expect("a file");
    let made =
        rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).expect("a certificate");
    std::fs::create_dir(folder.path().join("tls")).expect("a folder");
    std::fs::write(folder.path().join("tls/fullchain.pem"), made.cert.pem()).expect("a file");
    std::fs::write(
        folder.path().join("tls/privkey.pem"),
        made.signing_key.serialize_pem(),
    )
    .expect("a file");
    let (clients, revoked) = authority();
    std::fs::write(folder.path().join("tls/clients.pem"), clients).expect("a file");
    std::fs::write(folder.path().join("tls/clients.crl"), revoked).expect("a file");
    let output = Command::new(binary())
        .args(["check", "--config"])
        .arg(&file)
        .envs([
            ("SLUICEGATE_ADMIN_TOKEN", "0123456789abcdef0123456789abcdef"),
            (
                "SLUICEGATE_KEY",
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
            ("XPANDER_API_KEY", "upstream-key"),
            ("CI_GATEWAY_KEY", "0123456789abcdef0123456789abcdef"),
            ("GITHUB_WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
            ("GITHUB_TOKEN", "token-of-the-defaults"),
            (
                "STRIPE_WEBHOOK_SECRET",
                "whsec_0123456789abcdef0123456789abcdef",
            ),
            ("STRIPE_API_KEY", "rk_token-of-the-defaults"),
            ("ORDERS_SECRET", "0123456789abcdef"),
            ("WHATSAPP_APP_SECRET", "0123456789abcdef"),
            ("WHATSAPP_VERIFY_TOKEN", "0123456789abcdef"),
            ("WHATSAPP_TOKEN", "token-of-the-defaults"),
        ])
        .output()
        .expect("check runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

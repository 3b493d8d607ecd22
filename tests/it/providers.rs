//! A provider is a file and never code; and what an operator does with providers at the command line, against a
//! gateway that runs.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use http::Method;
use serde_json::{Value, json};

use crate::words::sources;
use crate::world::{self, Gateway, Upstream, binary};

/// Names of providers that are words of every program as well.
const WORDS: [&str; 10] = [
    "box", "cursor", "front", "line", "make", "render", "segment", "square", "tally", "x",
];

#[test]
fn no_provider_is_named_in_the_source_outside_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: Vec<String> = fs::read_dir(root.join("config/providers"))
        .expect("the providers are there")
        .map(|file| {
            file.expect("a file")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| !WORDS.contains(&name.as_str()))
        .collect();
    assert!(names.len() >= 200, "only {} providers", names.len());
    let mut wrong = Vec::new();
    for source in sources() {
        // The upstream's own word for where a task comes from, which it checks.
        // And the logs that are read through a provider's own API, each a file of its own, and the dialects of chats.
        let has_such_words = ["stub/request.rs", "config/reply/words.rs"];
        let has_own_files = ["reconcile", "render"];
        if has_such_words.contains(&source.name.as_str())
            || has_own_files.contains(&source.module())
        {
            continue;
        }
        for (index, line) in source.lines.iter().enumerate() {
            let line = line.to_ascii_lowercase();
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            // One goes by a word that is an operator's verb as well.
            let mut words = words.filter(|word| *word != "resend");
            if words.any(|word| names.iter().any(|name| name == word)) {
                wrong.push(source.place(index));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "providers are named in the source:\n{}",
        wrong.join("\n")
    );
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn requests_are_tried_line_by_line() {
    let good = json!({
        "id": "a", "provider": "github", "method": "POST", "path": "/hooks/x", "url": "https://h.example/hooks/x",
        "headers": { "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" },
        "body_base64": "SGVsbG8sIFdvcmxkIQ==", "secret": "It's a Secret to Everybody",
    });
    let mut bad = good.clone();
    bad["body_base64"] = "SGVsbG8sIFdvcmxkPw==".into();
    let output = run(
        &["provider", "try", "--requests", "-"],
        &format!("{good}\n\nnonsense\n{bad}\n"),
    );
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> = out(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        json!({ "id": "a", "verdict": "verified", "code": null, "secret": "secret" })
    );
    assert_eq!(lines[1]["code"], "malformed_request");
    assert_eq!(
        (&lines[2]["verdict"], &lines[2]["code"]),
        (&json!("refused"), &json!("wrong_signature"))
    );
}

#[test]
fn a_refusal_is_explained_and_a_provider_shown() {
    let raw = "POST /hooks/x HTTP/1.1\r\nX-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n\r\nHello, World!\n";
    let secret = "literal:It's a Secret to Everybody";
    let output = run(
        &[
            "verify",
            "explain",
            "--provider",
            "github",
            "--secret",
            secret,
        ],
        raw,
    );
    let said = out(&output);
    assert!(
        !output.status.success() && said.contains("a line end was added"),
        "{said}"
    );
    assert!(
        !said.contains("757107ea") && !said.contains("Everybody"),
        "{said}"
    );
    let shown = out(&run(&["provider", "show", "asana"], ""));
    assert!(
        shown.contains("enrol_file") && shown.contains("[sources.asana]"),
        "{shown}"
    );
    assert!(!run(&["provider", "show", "githib"], "").status.success());
}

#[test]
fn a_new_provider_is_checked_with_its_requests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at = |path: &str| root.join(path).display().to_string();
    let check =
        |file: &str, vectors: &str| run(&["provider", "check", file, "--vectors", vectors], "");
    let good = check(
        &at("config/providers/stripe.toml"),
        &at("tests/vectors/stripe"),
    );
    assert!(good.status.success(), "{good:?}");
    // These sign the address as well; their kept requests were sent to https://hooks.example.com.
    for name in ["trello", "favro", "hubspot-v3", "twilio", "square"] {
        let whole = check(
            &at(&format!("config/providers/{name}.toml")),
            &at(&format!("tests/vectors/{name}")),
        );
        assert!(whole.status.success(), "{name}: {whole:?}");
    }
    let wrong = check(
        &at("config/providers/stripe.toml"),
        &at("tests/vectors/slack"),
    );
    assert!(
        !wrong.status.success() && out(&wrong).contains("not as expected"),
        "{wrong:?}"
    );
}

const SOURCES: &str = r#"
[sources.push]
provider = "github"
secrets = ["literal:a-long-secret"]
agent = "a"
prompt = "x"

[sources.pair]
provider = "telnyx"
secrets = ["file:pair.pem.pub"]
agent = "a"
prompt = "x"

[sources.brought]
provider = "asana"
enrol_file = "brought.secrets"
agent = "a"
prompt = "x"
"#;

#[tokio::test]
async fn s17_samples_are_signed_and_sent_and_a_handshake_brings_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("pair.pem").display().to_string();
    let written = |server: &str| {
        let file = folder.path().join("c.toml");
        let text = format!(
            "{server}\n{}",
            SOURCES.replace("file:pair.pem.pub", &format!("file:{key}.pub"))
        )
        .replace(
            "\"brought.secrets\"",
            &format!("\"{}\"", folder.path().join("brought.secrets").display()),
        );
        fs::write(&file, &text).expect("a file");
        (file.display().to_string(), text)
    };
    // The pair is made before the gateway that knows it starts; any key of the kind lets the configuration be read.
    fs::write(
        format!("{key}.pub"),
        "MCowBQYDK2VwAyEAfU0Of2FTpptiQrUiq77mhf2kQg+INLEIw72uNp71Sfo=",
    )
    .expect("a file");
    let (file, _) = written("");
    let made = run(
        &["send", "pair", "--config", &file, "--key", &key, "--print"],
        "",
    );
    assert!(
        made.status.success() && out(&made).contains("telnyx-signature-ed25519: "),
        "{made:?}"
    );
    // A file of another kind: the message says what it is and what is wanted.
    let other = folder.path().join("other.pem").display().to_string();
    for (content, said) in [
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "a certificate",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "a public key",
        ),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "a private key in the form of OpenSSH",
        ),
        ("whsec_0123456789abcdef", "no key in PEM"),
        ("\n", "nothing"),
        (
            &rcgen::KeyPair::generate().expect("a key").serialize_pem(),
            "a P-256 private key",
        ),
    ] {
        fs::write(&other, content).expect("a file");
        let sent = run(&["send", "pair", "--config", &file, "--key", &other], "");
        let talk = String::from_utf8_lossy(&sent.stderr);
        let talk = talk.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            !sent.status.success()
                && talk.contains(&format!("holds {said};"))
                && talk.contains("source pair signs with an Ed25519 private key in PEM"),
            "{content}: {talk}"
        );
    }
    let upstream = Upstream::start(&[]).await;
    let (_, sources) = written("");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let to = format!("http://{}", gateway.public);
    for (source, key) in [("push", None), ("pair", Some(key.as_str()))] {
        let mut words = vec!["send", source, "--config", &file, "--to", &to];
        words.extend(key.map(|key| ["--key", key]).into_iter().flatten());
        let sent = run(&words, "");
        assert!(
            sent.status.success() && out(&sent).contains("\"accepted\""),
            "{source}: {sent:?}"
        );
    }

    let secret = [("x-hook-secret", "brought-secret-0123456789")];
    let closed = gateway.post("/hooks/brought", &secret, "").await;
    assert_eq!(closed.status().as_u16(), 403);
    let open = gateway
        .admin(Method::POST, "/sources/brought/enrol?for=1min")
        .await;
    assert_eq!(open.status().as_u16(), 202, "{open:?}");
    let address = world::json(&open)["address"]
        .as_str()
        .expect("an address")
        .to_owned();
    let path = address
        .find("/hooks/")
        .map_or("", |at| &address[at..])
        .to_owned();
    let knocking = gateway
        .post(
            "/hooks/brought",
            &[("x-hook-secret", "strangers-secret-0123456789")],
            "",
        )
        .await;
    assert_eq!(
        knocking.status().as_u16(),
        403,
        "only who has the address brings a secret"
    );
    let answered = gateway.post(&path, &secret, "").await;
    assert_eq!(answered.status().as_u16(), 200);
    assert_eq!(
        answered.headers()["x-hook-secret"],
        "brought-secret-0123456789"
    );
    let again = gateway
        .post(&path, &[("x-hook-secret", "another-secret-0123456789")], "")
        .await;
    assert_eq!(again.status().as_u16(), 403, "one for each window");
    let waits = gateway.admin_json("/sources/brought/enrol").await;
    let fingerprint = waits["brought"]["fingerprint"]
        .as_str()
        .expect("a fingerprint")
        .to_owned();
    let wrong = gateway
        .admin(
            Method::POST,
            "/sources/brought/enrol/confirm?fingerprint=0123456789abcdef",
        )
        .await;
    assert_eq!(wrong.status().as_u16(), 409);
    let confirm = format!("/sources/brought/enrol/confirm?fingerprint={fingerprint}");
    assert_eq!(
        gateway
            .admin(Method::POST, &confirm)
            .await
            .status()
            .as_u16(),
        200
    );
    let (file, _) = written("");
    let sent = run(&["send", "brought", "--config", &file, "--to", &to], "");
    assert!(sent.status.success(), "{sent:?}");
}

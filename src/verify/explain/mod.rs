//! Explanation of a refusal in words: the signed text, its age, and the mistake that probably caused the refusal.
//!
//! It never shows an expected signature or a secret.

mod mistakes;
mod variants;
mod words;

use crate::model::{OriginFault, Received, Timestamp};
use crate::verify::dry_run::DryRun;

impl DryRun {
    /// Explains what becomes of a request, in sentences.
    pub fn explain(&self, received: &Received, now: Timestamp) -> Vec<String> {
        let judged = self.judge(received, now);
        let mut lines = self.describe(received, now);
        match (judged.verdict, judged.code, &judged.cause) {
            ("refused", Some(code), Some(cause)) => {
                lines.push(format!("it is refused ({code}): {cause}"));
                match self.hint(received, now) {
                    Some(hint) => lines.push(format!("probably {hint}")),
                    None if code == OriginFault::WrongSignature.as_str() => lines.push(
                        "no usual mistake explains it: the secret is another, or the body was changed on its way"
                            .into(),
                    ),
                    None => {}
                }
            }
            (verdict, code, _) => {
                let by = judged
                    .secret
                    .map_or_else(String::new, |secret| format!(" by {secret}"));
                let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                let means = match verdict {
                    "verified" => ": the sender and every byte of the body are proved",
                    "authenticated" => ": the sender is proved, and not the whole body",
                    _ => ": nothing is proved, and nothing refused",
                };
                lines.push(format!("it is {verdict}{code}{by}{means}"));
            }
        }
        if let Some(reply) = judged.reply {
            lines.push(format!(
                "it is a handshake, answered with {} and {} bytes of {}",
                reply.status,
                reply.body.len(),
                reply.content_type
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::config::{Problems, Table};
    use crate::verify::dry_run::CheckConfig;
    use crate::verify::sign::Signer;
    use crate::verify::tests::support::{NOW, post};

    fn trial(verify: &str, secrets: &[&str]) -> DryRun {
        let secrets = secrets
            .iter()
            .enumerate()
            .map(|(n, s)| Secret::new(format!("secret {n}"), *s))
            .collect();
        let verify = Table::parse("t", verify, &Problems::default());
        DryRun::compile(CheckConfig {
            verify,
            challenges: Vec::new(),
            secrets,
            values: Vec::new(),
        })
        .unwrap()
    }

    const TIMED: &str = "signature = 'header:x-sig'\nprefix = 'v1='\nsigned_content = '{ts}.{url}.{body}'\n\
                         timestamp = { from = 'header:x-time', tolerance = 300 }\n";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn usual_mistakes_are_named() {
        let right = trial(TIMED, &[SECRET]);
        let body = "{\"a\": 1, \"b\": [\"é\", \"x,y:z\"]}";
        let signed = right
            .scheme
            .signed(Signer::Secret(0), &post(&[], body), NOW)
            .unwrap();
        let hint = |trial: &DryRun, change: &dyn Fn(&mut Received)| {
            let mut request = signed.clone();
            change(&mut request);
            let lines = trial.explain(&request, NOW).join("\n");
            assert!(
                !lines.contains(SECRET) && !lines.contains("MfKQ9r8G"),
                "{lines}"
            );
            let mac = signed.headers["x-sig"].to_str().unwrap();
            assert!(
                !lines.contains(&mac[3..]),
                "the expected signature is never shown: {lines}"
            );
            lines
        };
        let same: &dyn Fn(&mut Received) = &|_| {};
        assert!(hint(&right, same).contains("verified by secret 0"));
        for (expected, lines) in [
            (
                "JSON was read and written again",
                hint(&right, &|r| {
                    r.body = "{\"a\":1,\"b\":[\"é\",\"x,y:z\"]}".into()
                }),
            ),
            (
                "a line end was added",
                hint(&right, &|r| r.body = format!("{body}\n").into()),
            ),
            ("without the slash", hint(&right, &|r| r.url.push('/'))),
            (
                "without the port",
                hint(&right, &|r| r.url = r.url.replace(".com", ".com:443")),
            ),
            (
                "used as text, and the configuration decodes it",
                hint(
                    &trial(&format!("{TIMED}secret_encoding = 'whsec'"), &[SECRET]),
                    same,
                ),
            ),
            (
                "has blanks or a line end",
                hint(&trial(TIMED, &[&format!("{SECRET}\n")]), same),
            ),
            (
                "without the text before it",
                hint(&right, &|r| {
                    let bare = r.headers["x-sig"].to_str().unwrap()[3..].to_owned();
                    r.headers.insert("x-sig", bare.parse().unwrap());
                }),
            ),
            (
                "written as hexadecimal digits",
                hint(
                    &trial(&format!("{TIMED}encoding = 'base64'"), &[SECRET]),
                    same,
                ),
            ),
            ("it was signed 0 s ago", hint(&right, same)),
            (
                "the secret is another, or the body was changed",
                hint(&trial(TIMED, &["another-secret"]), same),
            ),
        ] {
            assert!(lines.contains(expected), "{expected} is not in\n{lines}");
        }
        let late = right
            .explain(&signed, NOW + std::time::Duration::from_secs(900))
            .join("\n");
        assert!(
            late.contains("900 s ago") && late.contains("waited too long"),
            "{late}"
        );
    }
}

//! Dry run of a provider's check: single requests judged without a gateway, a mapping, an inbox or a network.

use crate::config::{Located, Place, Problem, Problems, Provider, Secret, SourceConfig, Table};
use crate::model::{
    CertificatePattern, OriginFault, Proof, Received, Refusal, Strength, Timestamp, Verify as _,
};
use crate::verify::challenge::{Challenge, ChallengeOutcome, ChallengeResponse};
use crate::verify::inputs::SchemeInputs;
use crate::verify::request::inflate;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::compile::compile;

/// Parts of a check, as written.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// The `[verify]` section.
    pub verify: Table,
    /// The `[[challenge]]` tables.
    pub challenges: Vec<Table>,
    /// The secrets or public keys.
    pub secrets: Vec<Secret>,
    /// The operator's other values.
    pub values: Vec<(String, String)>,
}

/// A compiled check.
#[derive(Debug)]
pub struct DryRun {
    pub(crate) written: CheckConfig,
    pub(crate) scheme: Scheme,
    challenges: Vec<Challenge>,
}

/// Result of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRunResult {
    /// `verified`, `authenticated`, `observed` or `refused`.
    pub verdict: &'static str,
    /// The reason, for `refused` and `observed`.
    pub code: Option<&'static str>,
    /// A sentence for `refused`.
    pub cause: Option<String>,
    /// The name of the secret that matched.
    pub secret: Option<String>,
    /// The answer to a handshake.
    pub reply: Option<ChallengeResponse>,
}

impl CheckConfig {
    /// The check of a provider's file, with these secrets and values. None: the file has no `[verify]` section.
    pub fn of_provider(
        provider: &Provider,
        secrets: Vec<Secret>,
        values: Vec<(String, String)>,
    ) -> Option<Self> {
        let verify = provider.verify.clone()?;
        Some(Self {
            verify,
            challenges: provider.challenges.clone(),
            secrets,
            values,
        })
    }

    /// The check of a source, over that of its provider.
    pub fn of_source(source: &SourceConfig, provider: Option<&Provider>) -> Option<Self> {
        let verify = source
            .verify
            .as_ref()
            .or(provider.and_then(|provider| provider.verify.as_ref()))?;
        Some(Self {
            verify: verify.clone(),
            challenges: provider.map_or_else(Vec::new, |provider| provider.challenges.clone()),
            secrets: source
                .secrets
                .iter()
                .map(|secret| secret.value.clone())
                .collect(),
            values: source
                .values
                .iter()
                .map(|(name, value)| (name.value.clone(), value.value.clone()))
                .collect(),
        })
    }
}

impl DryRun {
    /// Compiles a check. The secrets are taken as they are, however weak.
    ///
    /// ```
    /// use sluicegate::config::{Problems, Secret, Table};
    /// use sluicegate::verify::{CheckConfig, DryRun};
    ///
    /// let verify = r#"
    /// signature = "header:X-Signature"
    /// prefix = "v1="
    /// signed_content = "{ts}.{body}"
    /// timestamp = { from = "header:X-Time", tolerance = 300 }
    /// "#;
    /// let check = CheckConfig {
    ///     verify: Table::parse("verify", verify, &Problems::default()),
    ///     challenges: Vec::new(),
    ///     secrets: vec![Secret::new("shared", "5f1c7a5e0d9b4c3a8e6f2d1b")],
    ///     values: Vec::new(),
    /// };
    /// let dry_run = DryRun::compile(check).expect("the table is right");
    /// assert!(dry_run.scheme().is_signed());
    /// ```
    pub fn compile(written: CheckConfig) -> Result<Self, Vec<Problem>> {
        let problems = Problems::default();
        let place = Place {
            file: "the request".into(),
            line: 0,
        };
        let located = |text: &str| Located {
            value: text.to_owned(),
            place: place.clone(),
        };
        let secrets: Vec<Located<Secret>> = written
            .secrets
            .iter()
            .map(|secret| Located {
                value: secret.clone(),
                place: place.clone(),
            })
            .collect();
        let values: Vec<_> = written
            .values
            .iter()
            .map(|(name, value)| (located(name), located(value)))
            .collect();
        // A handshake that brings the secret has none before.
        let brings = written
            .challenges
            .iter()
            .any(|challenge| challenge.get("store_secret").is_some());
        // A captured request has no connection, so any certificate would do.
        let any: Vec<Located<CertificatePattern>> = "any"
            .parse()
            .ok()
            .map(|value| Located {
                value,
                place: place.clone(),
            })
            .into_iter()
            .collect();
        let given = SchemeInputs {
            secrets: &secrets,
            client_certs: &any,
            values: &values,
            has_public_url: true,
            enrols: brings,
            source: ("of the request", &place),
            problems: &problems,
        };
        match compile(&written.verify, "verify", &written.challenges, &given) {
            (Some(scheme), Some(challenges)) if !problems.any_error() => Ok(Self {
                written,
                scheme,
                challenges,
            }),
            _ => Err(problems.into_sorted()),
        }
    }

    /// Judges a request the way a source does, whatever its method: handshakes first, as if its slot for a secret were open.
    pub fn judge(&self, received: &Received, now: Timestamp) -> DryRunResult {
        let received = match self.scheme.opened(received.clone()) {
            Ok(received) => received,
            Err(refusal) => return refused(&refusal),
        };
        match self
            .challenges
            .iter()
            .find_map(|challenge| challenge.answer(&received, &self.scheme, now))
        {
            Some(Ok(ChallengeOutcome { answer, proof, .. })) => {
                return DryRunResult {
                    reply: Some(answer),
                    ..passed(proof)
                };
            }
            Some(Err(refusal)) => return refused(&refusal),
            None => {}
        }
        let judged = self.scheme.judge(&received, now);
        let judged = judged.and_then(|proof| match self.scheme.compressed {
            Some(_) => match inflate::inflated(&received.headers, &received.body)? {
                Some(body) => {
                    let inflated = Received {
                        body,
                        ..received.clone()
                    };
                    let judged = self.scheme.bodies.check(&inflated);
                    judged
                        .map(|()| proof)
                        .map_err(|(fault, cause)| Refusal::Origin(fault, cause))
                }
                None => Ok(proof),
            },
            None => Ok(proof),
        });
        match judged {
            Ok(proof) => passed(proof),
            Err(refusal) => refused(&refusal),
        }
    }

    /// The scheme, to sign with.
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }
}

fn passed(proof: Proof) -> DryRunResult {
    let code = match proof.strength {
        Strength::None => Some(OriginFault::NotAttempted.as_str()),
        Strength::Observed(fault) => Some(fault.as_str()),
        _ => None,
    };
    DryRunResult {
        verdict: proof.strength.verdict(),
        code,
        cause: None,
        secret: proof.secret,
        reply: None,
    }
}

fn refused(refusal: &Refusal) -> DryRunResult {
    let (code, cause) = (Some(refusal.reason()), Some(refusal.cause()));
    DryRunResult {
        verdict: "refused",
        code,
        cause,
        secret: None,
        reply: None,
    }
}

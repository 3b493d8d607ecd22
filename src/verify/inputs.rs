//! Inputs of a scheme besides its table: the secrets and values of one source, and the list of problems.

use super::keys::mac::{Algorithm, Key, RunningDigest};
use super::keys::public::{PublicKey, PublicKeyEncoding};
use super::keys::secret_encoding::SecretEncoding;
use super::template::ContentTemplate;
use super::template::parse::TemplateSetup;
use crate::config::{Located, Place, Problems, Secret, Section};
use crate::model::CertificatePattern;

/// The inputs of a section besides its table.
pub(crate) struct SchemeInputs<'g> {
    pub(crate) secrets: &'g [Located<Secret>],
    /// The client certificates that the source accepts.
    pub(crate) client_certs: &'g [Located<CertificatePattern>],
    pub(crate) values: &'g [(Located<String>, Located<String>)],
    pub(crate) has_public_url: bool,
    /// True if a handshake may bring the secret later.
    pub(crate) enrols: bool,
    /// The source's name, and where it begins.
    pub(crate) source: (&'g str, &'g Place),
    pub(crate) problems: &'g Problems,
}

impl<'g> SchemeInputs<'g> {
    /// The names that templates may refer to.
    pub(crate) fn setup(&self, declared: Vec<String>) -> TemplateSetup<'g> {
        TemplateSetup {
            declared,
            values: self.values,
            has_public_url: self.has_public_url,
            source: self.source.1,
            problems: self.problems,
        }
    }

    /// Reads `config`. A value that is declared and not given is a problem of the source.
    pub(crate) fn declared(&self, section: &Section<'_>) -> Vec<String> {
        let declared: Vec<String> = section
            .texts("config")
            .unwrap_or_default()
            .into_iter()
            .map(|name| name.value)
            .collect();
        for name in &declared {
            if !self
                .values
                .iter()
                .any(|(key, value)| key.value == *name && !value.is_empty())
            {
                self.problems.error_hint(
                    self.source.1,
                    format!(
                        "the provider of source {} needs the value {name}",
                        self.source.0
                    ),
                    format!("add it: values = {{ {name} = \"…\" }}"),
                );
            }
        }
        for (key, _) in self.values {
            if !declared.contains(&key.value) {
                let what = format!("nothing asks for the value {}", key.value.escape_debug());
                self.problems.warn(
                    &key.place,
                    what,
                    "the provider file names its values with config = […]",
                );
            }
        }
        declared
    }

    /// Reads the shared secrets as keys. A scheme that needs one and has none is a problem.
    pub(crate) fn keys(&self, section: &Section<'_>, algorithms: &[Algorithm]) -> Option<Vec<Key>> {
        let notation = section
            .one_of("secret_encoding", &SecretEncoding::WORDS)
            .map_or(SecretEncoding::Utf8, |word| word.value);
        let derive = section
            .one_of("secret_derive", &Algorithm::WORDS)
            .map(|word| word.value);
        if self.secrets.is_empty() && !self.enrols {
            self.problems.error_hint(
                self.source.1,
                format!("source {} has no secret to check its callers with", self.source.0),
                "set secrets = [\"env:NAME\"] to what the provider was given, or enrol_file where its handshake brings the secret",
            );
            return None;
        }
        let mut keys = Some(Vec::with_capacity(self.secrets.len()));
        for secret in self.secrets {
            let bytes = notation
                .decode(secret.expose())
                .filter(|bytes| !bytes.is_empty());
            if bytes.is_none() {
                self.problems.error_hint(
                    &secret.place,
                    format!("the secret {} is not {}", secret.name(), notation.what()),
                    "copy it whole from the provider's page",
                );
            }
            keys = keys.zip(bytes).map(|(mut keys, mut bytes)| {
                if let Some(algorithm) = derive {
                    let mut digest = RunningDigest::plain(algorithm);
                    digest.take(&bytes);
                    bytes = digest.finish().as_bytes().to_vec();
                }
                keys.push(Key::new(secret.name(), bytes, algorithms));
                keys
            });
        }
        keys
    }

    /// Reads the public keys: those of the source, or else those of the provider's file.
    pub(crate) fn public_keys(
        &self,
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        may_be_none: bool,
        fits: &dyn Fn(&PublicKey) -> bool,
        what: &str,
    ) -> Option<Vec<PublicKey>> {
        let notation = PublicKeyEncoding::read(section);
        let mut sound = true;
        let read = |name: &str, place: &Place, text: &[u8]| {
            let mut keys = PublicKey::read(name, notation, text).unwrap_or_default();
            keys.retain(fits);
            if keys.is_empty() {
                self.problems.error_hint(
                    place,
                    format!("invalid {what} key {name}: expected {}", notation.what()),
                    "copy the public key whole; RSA keys need at least 2048 bits",
                );
            }
            keys
        };
        let mut keys = Vec::new();
        for secret in self.secrets {
            let read = read(secret.name(), &secret.place, secret.expose());
            sound &= !read.is_empty();
            keys.extend(read);
        }
        for (number, text) in section
            .texts("public_key")
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let Some(fixed) =
                ContentTemplate::compile(text, setup).and_then(|template| template.fixed())
            else {
                sound = false;
                continue;
            };
            let shipped = read(
                &format!("public_key {}", number + 1),
                &text.place,
                fixed.as_bytes(),
            );
            sound &= !shipped.is_empty();
            if self.secrets.is_empty() {
                keys.extend(shipped);
            }
        }
        if sound && keys.is_empty() && !may_be_none && !self.enrols {
            self.problems.error_hint(
                self.source.1,
                format!(
                    "source {} has no public key to check its callers with",
                    self.source.0
                ),
                "set secrets = [\"file:provider.pem\"] to the public key that the provider shows",
            );
            return None;
        }
        sound.then_some(keys)
    }
}

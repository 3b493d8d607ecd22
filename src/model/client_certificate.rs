//! Client certificate of a connection: the names in it, and the patterns by which a source accepts it.
//!
//! A certificate comes here only after the TLS listener has checked it against the CA. Nothing here checks a signature.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use x509_cert::certificate::Certificate;
use x509_cert::der::{Decode as _, Tag, Tagged as _, asn1::ObjectIdentifier};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Longest subject that is shown, in characters.
const SHOWN_SUBJECT: usize = 200;

/// Object identifier of the attribute `CN` (X.520).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A client certificate that the listener has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    fingerprint: [u8; 32],
    names: Vec<(NameKind, String)>,
}

/// Kind of name in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    /// The whole subject, as RFC 4514 writes it.
    Subject,
    /// The attribute `CN` of the subject.
    CommonName,
    /// Subject alternative name: a host name.
    Dns,
    /// Subject alternative name: a mail address.
    Email,
    /// Subject alternative name: a URI, such as a SPIFFE id.
    Uri,
    /// Subject alternative name: an IP address.
    Ip,
}

impl NameKind {
    const ALL: [(&'static str, Self); 6] = [
        ("subject", Self::Subject),
        ("cn", Self::CommonName),
        ("dns", Self::Dns),
        ("email", Self::Email),
        ("uri", Self::Uri),
        ("ip", Self::Ip),
    ];

    /// Character that a `*` does not match: one `*` is one label of a host name, or one segment of a URI.
    const fn separator(self) -> Option<char> {
        match self {
            Self::Dns => Some('.'),
            Self::Uri => Some('/'),
            Self::Email => Some('@'),
            Self::Subject | Self::CommonName | Self::Ip => None,
        }
    }
}

impl ClientCertificate {
    /// Reads the names of a certificate in DER; `None` if it cannot be decoded.
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let subject = certificate.tbs_certificate().subject();
        let mut names = vec![(NameKind::Subject, subject.to_string())];
        for attribute in subject.iter().filter(|part| part.oid == COMMON_NAME) {
            let is_text = matches!(
                attribute.value.tag(),
                Tag::Utf8String | Tag::PrintableString | Tag::Ia5String
            );
            if is_text && let Ok(text) = std::str::from_utf8(attribute.value.value()) {
                names.push((NameKind::CommonName, text.to_owned()));
            }
        }
        let alternatives = certificate
            .tbs_certificate()
            .get_extension::<SubjectAltName>()
            .ok()?;
        for name in alternatives.iter().flat_map(|(_, all)| &all.0) {
            match name {
                GeneralName::DnsName(name) => names.push((NameKind::Dns, name.to_string())),
                GeneralName::Rfc822Name(name) => names.push((NameKind::Email, name.to_string())),
                GeneralName::UniformResourceIdentifier(name) => {
                    names.push((NameKind::Uri, name.to_string()));
                }
                GeneralName::IpAddress(address) => {
                    names.extend(ip(address.as_bytes()).map(|ip| (NameKind::Ip, ip.to_string())));
                }
                _ => {}
            }
        }
        Some(Self {
            fingerprint: Sha256::digest(der).into(),
            names,
        })
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The subject and the fingerprint, on one line.
impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.names.first().map_or("", |(_, subject)| subject);
        let shown: String = subject.chars().take(SHOWN_SUBJECT).collect();
        write!(
            f,
            "\"{}\" (sha256:{})",
            shown.escape_debug(),
            hex::encode(self.fingerprint)
        )
    }
}

/// A pattern of `client_certs`: the certificates that a source accepts.
///
/// ```
/// use sluicegate::model::CertificatePattern;
///
/// assert!("dns:*.partner.example".parse::<CertificatePattern>().is_ok());
/// assert!("partner.example".parse::<CertificatePattern>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePattern {
    written: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Any,
    Fingerprint([u8; 32]),
    Name(NameKind, String),
}

/// A text that is not a pattern for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern for certificates")]
pub struct InvalidPattern;

impl CertificatePattern {
    /// True if the certificate has the fingerprint, or a name, that the pattern asks for.
    pub fn accepts(&self, certificate: &ClientCertificate) -> bool {
        match &self.test {
            Test::Any => true,
            Test::Fingerprint(wanted) => certificate.fingerprint == *wanted,
            Test::Name(kind, pattern) => {
                certificate
                    .names
                    .iter()
                    .filter(|(of, _)| of == kind)
                    .any(|(_, name)| match kind {
                        NameKind::Dns => {
                            glob(pattern, &name.to_ascii_lowercase(), kind.separator())
                        }
                        _ => glob(pattern, name, kind.separator()),
                    })
            }
        }
    }

    /// The pattern as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl FromStr for CertificatePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let test = match text.split_once(':') {
            None if text == "any" => Test::Any,
            None => return Err(InvalidPattern),
            Some(("sha256", digest)) => {
                // OpenSSL prints fingerprints with colons.
                let bytes = hex::decode(digest.replace(':', "")).map_err(|_| InvalidPattern)?;
                Test::Fingerprint(bytes.try_into().map_err(|_| InvalidPattern)?)
            }
            Some((word, name)) => {
                let (_, kind) = NameKind::ALL
                    .into_iter()
                    .find(|(known, _)| *known == word)
                    .filter(|_| !name.is_empty())
                    .ok_or(InvalidPattern)?;
                Test::Name(
                    kind,
                    match kind {
                        NameKind::Dns => name.to_ascii_lowercase(),
                        NameKind::Ip => name
                            .parse::<IpAddr>()
                            .map_err(|_| InvalidPattern)?
                            .to_string(),
                        _ => name.to_owned(),
                    },
                )
            }
        };
        Ok(Self {
            written: text.to_owned(),
            test,
        })
    }
}

/// True if a name matches a pattern in which `*` stands for any characters except the separator.
fn glob(pattern: &str, name: &str, separator: Option<char>) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(before) else {
        return false;
    };
    let longest = separator
        .and_then(|separator| rest.find(separator))
        .unwrap_or(rest.len());
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .take_while(|at| *at <= longest)
        .any(|at| glob(after, &rest[at..], separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            fingerprint: [0xab; 32],
            names: [
                (NameKind::Subject, "CN=billing,O=Partner"),
                (NameKind::CommonName, "billing"),
                (NameKind::Dns, "Billing.partner.example"),
                (NameKind::Email, "ops@partner.example"),
                (NameKind::Uri, "spiffe://prod/ns/pay/sa/billing"),
                (NameKind::Ip, "192.0.2.7"),
            ]
            .map(|(kind, name)| (kind, name.to_owned()))
            .into(),
        }
    }

    fn accepts(pattern: &str) -> bool {
        let pattern: CertificatePattern = pattern.parse().expect("a pattern");
        pattern.accepts(&certificate())
    }

    #[test]
    fn a_certificate_is_accepted_by_its_fingerprint_or_by_one_of_its_names() {
        let fingerprint = format!("sha256:{}", "AB:".repeat(32).trim_end_matches(':'));
        for pattern in [
            "any",
            &fingerprint,
            "subject:CN=billing,O=Partner",
            "subject:*,O=Partner",
            "cn:billing",
            "dns:billing.partner.example",
            "dns:*.partner.example",
            "email:*@partner.example",
            "uri:spiffe://prod/ns/*/sa/billing",
            "ip:192.0.2.7",
        ] {
            assert!(accepts(pattern), "{pattern}");
        }
        for pattern in [
            &format!("sha256:{}", "cd".repeat(32)),
            "subject:CN=billing",
            "cn:Billing",
            "cn:ops",
            "dns:billing",
            "dns:*.example",
            "dns:partner.example",
            "uri:spiffe://prod/*",
            "email:*.example",
            "ip:192.0.2.8",
        ] {
            assert!(!accepts(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_text_without_a_known_kind_is_not_a_pattern() {
        for wrong in [
            "",
            "billing",
            "dns:",
            "DNS:a",
            "sha256:abcd",
            "sha256:zz",
            "ip:192.0.2",
            "md5:00",
        ] {
            assert_eq!(
                wrong.parse::<CertificatePattern>(),
                Err(InvalidPattern),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_read_from_its_der() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example".into(), "192.0.2.7".into()])
                .expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "the client");
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        let read = ClientCertificate::read(made.der()).expect("it is read");
        for pattern in [
            "cn:the client",
            "dns:a.example",
            "ip:192.0.2.7",
            "subject:CN=the client",
        ] {
            let parsed: CertificatePattern = pattern.parse().expect("a pattern");
            assert!(parsed.accepts(&read), "{pattern} {read:?}");
        }
        assert!(
            read.to_string().starts_with("\"CN=the client\" (sha256:"),
            "{read}"
        );
        assert_eq!(ClientCertificate::read(b"not DER"), None);
    }
}

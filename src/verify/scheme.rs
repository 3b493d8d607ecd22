//! A `[verify]` section, compiled: one way to prove origin, as data.
//!
//! No provider's name stands here. What a section says wrongly is noted with its place, all of it, and then there is
//! no scheme: half a check is none. Running one is `verify.rs`, running it backwards is `sign.rs`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::body_kinds::BodyKinds;
use super::challenge::{Confirmation, FieldCondition, wants};
use super::content::{ContentTemplate, Placeholder, TemplateSetup};
use super::field::{DocumentPlace, Field, steps};
use super::forward_auth::ForwardAuth;
use super::inflate::Compressed;
use super::keys::certificate::Certificates;
use super::keys::jwt::Jwt;
use super::keys::mac::{Algorithm, Key, RunningDigest};
use super::keys::public::{self, PublicKey, PublicKeyAlgorithm};
use super::lint::{self, WeakReasons};
use super::shared_secret::{Basic, SharedToken};
use super::signature::{Grammar, SignaturePlaces};
use super::signing_oracle::SigningOracle;
use super::tolerance::Tolerance;
use crate::config::section::nearest;
use crate::config::{Located, Place, Problems, Secret, Section, Table};
use crate::model::Strength;

/// One way to prove origin, with the secrets of one source.
#[derive(Debug)]
pub struct Scheme {
    /// Where the provider's own name for an event stands, as written.
    pub event_id: Vec<Located<String>>,
    /// Where its word for what happened stands, as written.
    pub event_type: Vec<Located<String>>,
    pub(crate) document: DocumentPlace,
    /// The kinds of body that events have.
    pub(crate) bodies: BodyKinds,
    /// Whether compressed bodies are taken, and over which bytes of them the signature is.
    pub(crate) compressed: Option<Compressed>,
    /// The status for a request that is not proved, where the provider wants another than ours.
    pub(crate) reject_status: Option<u16>,
    pub(crate) confirm: Option<Confirmation>,
    pub(crate) base: Mechanism,
    /// The first that a request fits takes the place of the base.
    pub(crate) variants: Vec<(Vec<(Field, FieldCondition)>, Mechanism)>,
}

/// A code path, and what it needs.
#[derive(Debug)]
pub(crate) enum Mechanism {
    /// A digest or a signature over a text of the request.
    Signed(Box<Signed>),
    /// A signed token, whose claims say what is proved.
    Jwt(Box<Jwt>),
    /// A shared token; once per item where there is a list.
    Token(SharedToken, Option<SignedItems>),
    /// HTTP basic auth.
    Basic(Basic),
    /// Another service judges.
    Ask(Box<ForwardAuth>),
    /// Nothing is checked.
    Open,
}

/// A signature over a text of the request, and what has to hold besides.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) prove: KeyMaterial,
    pub(crate) algorithm: AlgorithmChoice,
    pub(crate) grammar: Grammar,
    pub(crate) contents: Vec<ContentTemplate>,
    pub(crate) stamp: Option<TimestampField>,
    pub(crate) equal: Vec<(ContentTemplate, ContentTemplate)>,
    /// Fields that must not hold a text, because it stands between them in what is signed.
    pub(crate) without: Vec<(Field, Vec<u8>)>,
    pub(crate) each: Option<SignedItems>,
    pub(crate) strength: Strength,
    /// What handshakes have signed with the same secrets for whoever asks.
    pub(crate) asked: Vec<SigningOracle>,
    /// Whether each signed text is of one request: it holds the body, or another value of the request than a time.
    pub(crate) is_of_one: bool,
}

/// With what a signature is made.
#[derive(Debug)]
pub(crate) enum KeyMaterial {
    /// HMAC with a shared secret.
    Hmac(Vec<Key>),
    /// A plain digest of a text that holds the secret.
    Plain(Vec<Key>),
    /// A private key; the public ones are at hand, or in certificates that requests name.
    Public {
        kind: PublicKeyAlgorithm,
        notation: public::PublicKeyEncoding,
        keys: Vec<PublicKey>,
        certificates: Option<Box<Certificates>>,
    },
}

impl KeyMaterial {
    /// The shared secrets; a key pair has none.
    pub(crate) fn secrets(&self) -> &[Key] {
        match self {
            Self::Hmac(keys) | Self::Plain(keys) => keys,
            Self::Public { .. } => &[],
        }
    }
}

/// Which digest.
#[derive(Debug)]
pub(crate) enum AlgorithmChoice {
    One(Algorithm),
    /// The request names one of those that the file allows.
    Listed(Field, Vec<(String, Algorithm)>),
}

/// Where the time stands, and what times are let in.
#[derive(Debug)]
pub(crate) struct TimestampField {
    pub(crate) from: Field,
    pub(crate) window: Tolerance,
}

/// A list whose items are proved one by one.
#[derive(Clone, Debug)]
pub(crate) struct SignedItems {
    pub(crate) list: Vec<String>,
    pub(crate) rest: Vec<String>,
}

/// What a section is compiled with.
pub(crate) struct SchemeInputs<'g> {
    pub(crate) secrets: &'g [Located<Secret>],
    pub(crate) values: &'g [(Located<String>, Located<String>)],
    pub(crate) has_public_url: bool,
    /// Whether a handshake may bring the secret later.
    pub(crate) enrols: bool,
    /// The source's name, and where it begins.
    pub(crate) source: (&'g str, &'g Place),
    pub(crate) problems: &'g Problems,
}

/// The words of `scheme`.
const SCHEMES: [&str; 11] = [
    "hmac",
    "hash",
    "ed25519",
    "ecdsa-p256",
    "rsa-pkcs1",
    "rsa-pss",
    "jwt",
    "token",
    "basic",
    "ask",
    "none",
];

/// How a signature is made, before its keys are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SigningMethod {
    Hmac,
    Plain,
    Pair(PublicKeyAlgorithm),
}

/// Keys that belong to the whole file, not to a way.
const WHOLE: [&str; 10] = [
    "variant",
    "config",
    "event_id",
    "event_type",
    "document",
    "body",
    "body_kind",
    "weak",
    "reject_status",
    "confirm",
];

impl Scheme {
    /// Compiles a section. `name` is its dotted path.
    pub(crate) fn compile(table: &Table, name: &str, given: &SchemeInputs<'_>) -> Option<Self> {
        let section = Section::new(table, name, given.problems);
        let setup = given.setup(given.declared(&section));
        let document = document(&section);
        let bodies = BodyKinds::read(&section);
        let weak = WeakReasons::read(&section);
        let event_id = section.texts("event_id").unwrap_or_default();
        let event_type = section.texts("event_type").unwrap_or_default();
        let compressed = section
            .one_of(
                "body",
                &[
                    ("as-received", Compressed::AsReceived),
                    ("decompressed", Compressed::Inflated),
                ],
            )
            .map(|word| word.value);
        let reject_status = section.integer("reject_status").and_then(|status| {
            let good = u16::try_from(status.value)
                .ok()
                .filter(|code| (400..500).contains(code));
            if good.is_none() {
                given.problems.error(
                    &status.place,
                    format!("{} must be from 400 to 499", section.path("reject_status")),
                );
            }
            good
        });
        let confirm = match section.section("confirm") {
            Some(table) => Some(Confirmation::read(&table)?),
            None => None,
        };
        let base = Mechanism::read(&section, &setup, given);
        let mut variants = Some(Vec::new());
        for variant in section.sections("variant") {
            let when = chosen(&variant);
            // Read as a section of its own, so that what is wrong in it is reported as it would be in the base.
            let mut merged = table.clone();
            let mut over = variant.into_table();
            over.entries.retain(|(key, ..)| key != "when");
            merged.lay(over);
            let merged = Section::new(&merged, name, given.problems);
            for key in WHOLE {
                merged.has(key);
            }
            let way = Mechanism::read(&merged, &setup, given);
            if let (Some(Mechanism::Open), false) = (&way, matches!(base, Some(Mechanism::Open))) {
                let what = "a variant that checks nothing would let in whoever chooses it";
                given.problems.error(merged.place(), what);
                variants = None;
            }
            if way.is_some()
                && [way.as_ref(), base.as_ref()]
                    .iter()
                    .any(|way| matches!(way, Some(Mechanism::Ask(_))))
            {
                let what = "a source that asks another service has no variants: the service sees the whole request";
                given.problems.error(merged.place(), what);
                variants = None;
            }
            variants = variants.zip(when.zip(way)).map(|(mut all, variant)| {
                all.push(variant);
                all
            });
        }
        let scheme = Self {
            event_id,
            event_type,
            document: document?,
            bodies: bodies?,
            compressed,
            reject_status,
            confirm,
            base: base?,
            variants: variants?,
        };
        lint::look(&scheme, &weak?, section.place(), given.problems).then_some(scheme)
    }

    /// Tells it what handshakes have signed with its secrets for whoever asks. Where bodies may be of any kind, that is a
    /// problem: the next one who asks could have an event signed.
    pub(crate) fn beside(
        mut self,
        asked: Vec<SigningOracle>,
        verify: &Table,
        problems: &Problems,
    ) -> Option<Self> {
        if asked.is_empty() {
            return Some(self);
        }
        if self.bodies.any() {
            problems.error_hint(
                &verify.place,
                "its handshake signs for whoever asks, and bodies of events may be of any kind",
                "say what the provider's events are: body_kind = \"json-object\", \"json\", \"form\" or \"xml\"",
            );
            return None;
        }
        let variants = self.variants.iter_mut().map(|(_, way)| way);
        for way in std::iter::once(&mut self.base).chain(variants) {
            match way {
                Mechanism::Signed(signed) => signed.asked.clone_from(&asked),
                Mechanism::Jwt(jwt) => jwt.asked.clone_from(&asked),
                Mechanism::Token(..)
                | Mechanism::Basic(_)
                | Mechanism::Ask(_)
                | Mechanism::Open => {}
            }
        }
        Some(self)
    }

    /// The keys, in the order of the configuration.
    pub(crate) fn keys(&self) -> &[Key] {
        self.base.keys()
    }

    /// Where its proof stands when it is the secret itself.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &super::signature::SignaturePlace> {
        self.ways().flat_map(Mechanism::shown)
    }

    /// Where signatures stand.
    pub(crate) fn spelled(&self) -> impl Iterator<Item = &super::signature::SignaturePlace> {
        self.ways().flat_map(|way| match way {
            Mechanism::Signed(signed) => signed.grammar.places.list.as_slice(),
            _ => &[],
        })
    }

    /// Whether requests are signed, in every way.
    pub fn is_signed(&self) -> bool {
        self.ways()
            .all(|way| matches!(way, Mechanism::Signed(_) | Mechanism::Jwt(_)))
    }

    /// Whether its file names an id of events, or every way has a time.
    pub(crate) fn names_or_times(&self) -> bool {
        let timed = |way: &Mechanism| match way {
            Mechanism::Signed(signed) => signed.stamp.is_some(),
            Mechanism::Jwt(_) => true,
            _ => false,
        };
        !self.event_id.is_empty() || self.ways().all(timed)
    }

    /// Every way, the base first.
    pub(crate) fn ways(&self) -> impl Iterator<Item = &Mechanism> {
        std::iter::once(&self.base).chain(self.variants.iter().map(|(_, way)| way))
    }
}

impl<'g> SchemeInputs<'g> {
    /// What templates may refer to.
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
    fn declared(&self, section: &Section<'_>) -> Vec<String> {
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
}

/// Reads what chooses a variant: a field that is there, or a table of fields and what stands there.
fn chosen(variant: &Section<'_>) -> Option<Vec<(Field, FieldCondition)>> {
    use crate::config::Value as Toml;
    if let Some(Toml::Table(table)) = variant.node("when").map(|node| &node.value)
        && !table.entries.is_empty()
    {
        return wants(variant);
    }
    let hint = "name the field whose presence chooses it, for example \"query:bodySHA256\"";
    let text = variant.required_text("when", hint)?;
    Field::parse(&text, variant.problems()).map(|field| vec![(field, FieldCondition::Present)])
}

fn document(section: &Section<'_>) -> Option<DocumentPlace> {
    let Some(written) = section.text("document") else {
        return Some(DocumentPlace::Body);
    };
    let field = written
        .strip_prefix("multipart:")
        .filter(|field| !field.is_empty());
    if field.is_none() && written.value != "body" {
        section.problems().error(
            &written.place,
            format!(
                "{} must be \"body\" or \"multipart:\" and the name of a form part",
                section.path("document")
            ),
        );
        return None;
    }
    Some(field.map_or(DocumentPlace::Body, |field| {
        DocumentPlace::Multipart(field.to_owned())
    }))
}

impl Mechanism {
    fn read(
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let written = section.text("scheme");
        match written.as_ref().map_or("hmac", |word| word.value.as_str()) {
            "hmac" => Some(Self::Signed(Box::new(Signed::read(
                SigningMethod::Hmac,
                section,
                setup,
                given,
            )?))),
            "hash" => Some(Self::Signed(Box::new(Signed::read(
                SigningMethod::Plain,
                section,
                setup,
                given,
            )?))),
            "ed25519" => Some(Self::Signed(Box::new(Signed::read(
                SigningMethod::Pair(PublicKeyAlgorithm::Ed25519),
                section,
                setup,
                given,
            )?))),
            "ecdsa-p256" => {
                let raw = section
                    .one_of("form", &[("der", false), ("raw", true)])
                    .is_some_and(|form| form.value);
                let made = SigningMethod::Pair(PublicKeyAlgorithm::EcdsaP256 { raw });
                Some(Self::Signed(Box::new(Signed::read(
                    made, section, setup, given,
                )?)))
            }
            "rsa-pkcs1" => Some(Self::Signed(Box::new(Signed::read(
                SigningMethod::Pair(PublicKeyAlgorithm::RsaPkcs1),
                section,
                setup,
                given,
            )?))),
            "rsa-pss" => Some(Self::Signed(Box::new(Signed::read(
                SigningMethod::Pair(PublicKeyAlgorithm::RsaPss),
                section,
                setup,
                given,
            )?))),
            "jwt" => Some(Self::Jwt(Box::new(Jwt::read(section, setup, given)?))),
            "token" => {
                let places = SignaturePlaces::read(section, setup);
                let each = SignedItems::read(section);
                let keys = given.keys(section, &[]);
                Some(Self::Token(
                    SharedToken {
                        places: places?,
                        keys: keys?,
                    },
                    each?,
                ))
            }
            "basic" => {
                let keys = given.keys(section, &[])?;
                let mut whole = true;
                for (key, secret) in keys.iter().zip(given.secrets) {
                    if !key.expose().contains(&b':') {
                        whole = false;
                        given.problems.error_hint(
                            &secret.place,
                            "a secret for basic auth must hold name and password",
                            "write both with a colon between them: \"name:password\"",
                        );
                    }
                }
                whole.then_some(Self::Basic(Basic { keys }))
            }
            "ask" => Some(Self::Ask(Box::new(ForwardAuth::read(section, given)?))),
            "none" => Some(Self::Open),
            word => {
                // What else stands here belongs to a scheme that nobody knows.
                for (key, _) in section.keys() {
                    section.has(key);
                }
                let place = written.as_ref().map_or(section.place(), |word| &word.place);
                let hint = match nearest(word, SCHEMES.into_iter()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known are {}", SCHEMES.join(", ")),
                };
                given.problems.error_hint(
                    place,
                    format!("no scheme is called \"{}\"", word.escape_debug()),
                    hint,
                );
                None
            }
        }
    }

    /// Where its proof stands when it is the secret itself.
    pub(crate) fn shown(&self) -> &[super::signature::SignaturePlace] {
        match self {
            Self::Token(token, _) => token.places.list.as_slice(),
            Self::Jwt(jwt) => jwt.places.list.as_slice(),
            _ => &[],
        }
    }

    /// The shared secrets.
    pub(crate) fn keys(&self) -> &[Key] {
        match self {
            Self::Signed(signed) => signed.prove.secrets(),
            Self::Jwt(jwt) => &jwt.keys,
            Self::Token(token, _) => &token.keys,
            Self::Basic(basic) => &basic.keys,
            Self::Ask(_) | Self::Open => &[],
        }
    }
}

impl Signed {
    fn read(
        made: SigningMethod,
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let problems = section.problems();
        let algorithm = AlgorithmChoice::read(section);
        let grammar = Grammar::read(section, setup);
        let stamp = section.section("timestamp").map(|stamp| {
            let from = stamp
                .required_text(
                    "from",
                    "name the field that holds the time, for example \"signature:t\"",
                )
                .and_then(|text| Field::parse(&text, problems));
            let window = Tolerance::read(&stamp);
            from.map(|from| TimestampField { from, window })
        });
        let default = || {
            vec![Located {
                value: "{body}".into(),
                place: section.place().clone(),
            }]
        };
        let written = section.texts("signed_content").unwrap_or_else(default);
        if written.is_empty() {
            problems.error(
                section.place(),
                format!("{} is empty", section.path("signed_content")),
            );
        }
        let contents = ContentTemplate::compile_all(&written, setup);
        let equal = equalities(section, setup);
        let without = without(section);
        let each = SignedItems::read(section);
        let algorithms: Vec<Algorithm> = algorithm
            .as_ref()
            .map(|choice| choice.all().collect())
            .unwrap_or_default();
        let prove = match made {
            SigningMethod::Hmac => given.keys(section, &algorithms).map(KeyMaterial::Hmac),
            SigningMethod::Plain => given.keys(section, &[]).map(KeyMaterial::Plain),
            SigningMethod::Pair(kind) => given.pairs(kind, &algorithms, section, setup),
        };
        let (stamp, contents, equal) = (
            stamp.map_or(Some(None), |s| s.map(Some))?,
            contents?,
            equal?,
        );
        let grammar = grammar?;
        let mut sound = !written.is_empty();
        let mut fault = |place: &Place, what: &str| {
            sound = false;
            problems.error(place, what);
        };
        for (template, text) in contents.iter().zip(&written) {
            if made == SigningMethod::Plain && !template.holds_secret() {
                fault(
                    &text.place,
                    "a plain digest without {secret} in its text can be made by anybody",
                );
            }
            if matches!(made, SigningMethod::Pair(_))
                && template.any(&|value| *value == Placeholder::Secret)
            {
                fault(
                    &text.place,
                    "a secret stands here, and a scheme with a key pair has none",
                );
            }
            if stamp.is_none() && template.any(&|value| *value == Placeholder::Ts) {
                fault(
                    &text.place,
                    "{ts} stands here, and no timestamp says where it comes from",
                );
            }
            let listed =
                |value: &Placeholder| matches!(value, Placeholder::Field(Field::Signature(_)));
            if !grammar.has_fields() && template.any(&listed) {
                fault(
                    &text.place,
                    "{signature:…} stands here, and neither pair nor positional names other keys",
                );
            }
        }
        if let Some(TimestampField {
            from: Field::Signature(_),
            ..
        }) = &stamp
            && !grammar.has_fields()
        {
            fault(
                section.place(),
                "the time comes from signature:…, and neither pair nor positional names other keys",
            );
        }
        let strength = if binds_body(&contents, &equal) {
            Strength::Signed
        } else {
            Strength::Origin
        };
        let (algorithm, each, prove, without) = (algorithm?, each?, prove?, without?);
        let is_of_one =
            strength == Strength::Signed || contents.iter().all(ContentTemplate::is_of_one);
        let asked = Vec::new();
        sound.then_some(Self {
            prove,
            algorithm,
            grammar,
            contents,
            stamp,
            equal,
            without,
            each,
            strength,
            asked,
            is_of_one,
        })
    }
}

/// Whether every byte of the body is proved: each signed text holds it, or an equality holds a digest of it against
/// something that each signed text holds.
fn binds_body(contents: &[ContentTemplate], equal: &[(ContentTemplate, ContentTemplate)]) -> bool {
    if contents.iter().all(ContentTemplate::holds_body) {
        return true;
    }
    let signed = |template: &ContentTemplate| {
        template.as_value().is_some_and(|value| {
            contents.iter().all(|content| {
                content.holds(value)
                    || matches!(value, Placeholder::Field(Field::Query(_)))
                        && [
                            Placeholder::Url,
                            Placeholder::UrlWithPort,
                            Placeholder::Path,
                            Placeholder::QuerySorted,
                        ]
                        .iter()
                        .any(|whole| content.holds(whole))
            })
        })
    };
    equal
        .iter()
        .any(|(a, b)| (a.holds_body() && signed(b)) || (b.holds_body() && signed(a)))
}

/// Reads `without`, a table of fields and the text that each does not hold.
fn without(section: &Section<'_>) -> Option<Vec<(Field, Vec<u8>)>> {
    let mut all = Some(Vec::new());
    for (field, text) in section.text_table("without").unwrap_or_default() {
        if text.is_empty() {
            section.problems().error(
                &text.place,
                format!("{} has an empty text in it", section.path("without")),
            );
            all = None;
        }
        all = all
            .zip(Field::parse(&field, section.problems()))
            .map(|(mut all, field)| {
                all.push((field, text.value.into_bytes()));
                all
            });
    }
    all
}

/// Reads `equal`, a list of pairs of templates.
fn equalities(
    section: &Section<'_>,
    setup: &TemplateSetup<'_>,
) -> Option<Vec<(ContentTemplate, ContentTemplate)>> {
    use crate::config::Value as Toml;
    let Some(node) = section.node("equal") else {
        return Some(Vec::new());
    };
    let wrong = |place: &Place| {
        section.problems().error_hint(
            place,
            format!("{} must be a list of pairs of texts", section.path("equal")),
            "for example equal = [[\"{query:digest}\", \"{body|sha256|hex}\"]]",
        );
    };
    let Toml::List(pairs) = &node.value else {
        wrong(&node.place);
        return None;
    };
    let mut all = Some(Vec::with_capacity(pairs.len()));
    for pair in pairs {
        let texts: Vec<Located<String>> = match &pair.value {
            Toml::List(sides) => sides
                .iter()
                .filter_map(|side| match &side.value {
                    Toml::Text(text) => Some(Located {
                        value: text.clone(),
                        place: side.place.clone(),
                    }),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let [a, b] = texts.as_slice() else {
            wrong(&pair.place);
            all = None;
            continue;
        };
        let sides = ContentTemplate::compile(a, setup).zip(ContentTemplate::compile(b, setup));
        all = all.zip(sides).map(|(mut all, sides)| {
            all.push(sides);
            all
        });
    }
    all
}

impl AlgorithmChoice {
    fn read(section: &Section<'_>) -> Option<Self> {
        use crate::config::Value as Toml;
        match section.node("algorithm").map(|node| &node.value) {
            None => Some(Self::One(Algorithm::Sha256)),
            Some(Toml::Table(_)) => {
                let table = section.section("algorithm")?;
                let from = table
                    .required_text("from", "name the field that names the algorithm")
                    .and_then(|text| Field::parse(&text, table.problems()));
                let mut map = Vec::new();
                for (text, word) in table.text_table("map").unwrap_or_default() {
                    match Algorithm::parse(&word) {
                        Some(algorithm) => map.push((text.value, algorithm)),
                        None => table
                            .problems()
                            .error(&word.place, "no algorithm is called so"),
                    }
                }
                if map.is_empty() {
                    let what = format!("{} allows no algorithm", table.path("map"));
                    table.problems().error_hint(
                        table.place(),
                        what,
                        "for example map = { v2 = \"sha256\" }",
                    );
                    return None;
                }
                Some(Self::Listed(from?, map))
            }
            Some(_) => section
                .one_of("algorithm", &Algorithm::WORDS)
                .map(|word| Self::One(word.value)),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Algorithm> {
        let (one, listed) = match self {
            Self::One(algorithm) => (Some(*algorithm), &[][..]),
            Self::Listed(_, map) => (None, map.as_slice()),
        };
        one.into_iter()
            .chain(listed.iter().map(|(_, algorithm)| *algorithm))
    }
}

impl SignedItems {
    /// Reads `each`; the outer option is whether it could be read.
    fn read(section: &Section<'_>) -> Option<Option<Self>> {
        let Some(written) = section.text("each") else {
            return Some(None);
        };
        let path = |text: &str| {
            if text.is_empty() {
                Vec::new()
            } else {
                steps(text)
            }
        };
        match written.split_once("[*]") {
            Some((list, rest))
                if !rest.contains("[*]") && (rest.is_empty() || rest.starts_with('.')) =>
            {
                Some(Some(Self {
                    list: path(list),
                    rest: path(rest.trim_start_matches('.')),
                }))
            }
            _ => {
                section.problems().error_hint(
                    &written.place,
                    format!("{} must be a path with one [*] in it", section.path("each")),
                    "for example \"items[*].request\"",
                );
                None
            }
        }
    }
}

/// How the operator's text becomes a key.
#[derive(Clone, Copy)]
enum SecretEncoding {
    Utf8,
    Base64,
    Hex,
    Whsec,
}

/// Base64 as operators paste it: with and without padding.
pub(crate) const PASTED: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Base64 of a shared secret, which may be any text of its letters that somebody made up: bits that fill no byte do not
/// count.
const MADE_UP: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a shared secret that is written in base64, as the senders' libraries read them: padding may be missing or
/// be too much, and what is left of the last letters and fills no byte is left out.
fn shared_base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |at| at + 1);
    if text.len() - end > 2 {
        return None;
    }
    // Six bits alone are no byte.
    let end = if end % 4 == 1 { end - 1 } else { end };
    MADE_UP
        .decode(&text[..end])
        .ok()
        .filter(|key| !key.is_empty())
}

impl SecretEncoding {
    fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.to_vec()),
            Self::Base64 => shared_base64(text),
            Self::Hex => hex::decode(text).ok(),
            Self::Whsec => {
                let mark = b"whsec_";
                let start = text
                    .windows(mark.len())
                    .position(|w| w == mark)
                    .map_or(0, |at| at + mark.len());
                shared_base64(&text[start..])
            }
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Utf8 => "text",
            Self::Base64 => "base64",
            Self::Hex => "hexadecimal digits",
            Self::Whsec => "whsec_ and base64",
        }
    }
}

impl SchemeInputs<'_> {
    /// Makes the keys; a scheme that needs one and has none is a problem.
    pub(crate) fn keys(&self, section: &Section<'_>, algorithms: &[Algorithm]) -> Option<Vec<Key>> {
        let notation = section
            .one_of(
                "secret_encoding",
                &[
                    ("utf8", SecretEncoding::Utf8),
                    ("base64", SecretEncoding::Base64),
                    ("hex", SecretEncoding::Hex),
                    ("whsec", SecretEncoding::Whsec),
                ],
            )
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

    /// Makes the public keys of a scheme with a key pair, and what may fetch more of them.
    fn pairs(
        &self,
        kind: PublicKeyAlgorithm,
        algorithms: &[Algorithm],
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
    ) -> Option<KeyMaterial> {
        let mut sound = true;
        if let Some(wrong) = algorithms.iter().find(|algorithm| !kind.takes(**algorithm)) {
            sound = false;
            let what = format!("{} keys do not sign with {}", kind.what(), wrong.word());
            self.problems.error(section.place(), what);
        }
        let certificates = match section.section("cert_url") {
            Some(table) => {
                let read = Certificates::read(&table).map(Box::new);
                sound &= read.is_some();
                read
            }
            None => None,
        };
        let keys = self.public_keys(
            section,
            setup,
            certificates.is_some(),
            &|key| key.is(kind),
            kind.what(),
        )?;
        let notation = public::PublicKeyEncoding::read(section);
        sound.then_some(KeyMaterial::Public {
            kind,
            notation,
            keys,
            certificates,
        })
    }

    /// Reads the public keys: those of the source, or without any those that stand in the file.
    pub(crate) fn public_keys(
        &self,
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        may_be_none: bool,
        fits: &dyn Fn(&PublicKey) -> bool,
        what: &str,
    ) -> Option<Vec<PublicKey>> {
        let notation = public::PublicKeyEncoding::read(section);
        let mut sound = true;
        let read = |name: &str, place: &Place, text: &[u8]| {
            let mut keys = PublicKey::read(name, notation, text).unwrap_or_default();
            keys.retain(fits);
            if keys.is_empty() {
                self.problems.error_hint(
                    place,
                    format!(
                        "the key {name} is no {what} key written as {}",
                        notation.what()
                    ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_secret_in_base64_is_read_as_the_libraries_of_senders_read_it() {
        let key = |text: &str| shared_base64(text.as_bytes());
        assert_eq!(key("AQID").as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(key("AQIDBA==").as_deref(), Some(&[1, 2, 3, 4][..]));
        for also in ["AQIDBA", "AQIDBA=", "AQIDBP", "AQIDBP==", "AQIDBP="] {
            assert_eq!(key(also).as_deref(), Some(&[1, 2, 3, 4][..]), "{also}");
        }
        assert_eq!(
            key("AQIDq").as_deref(),
            Some(&[1, 2, 3][..]),
            "six bits are no byte"
        );
        for wrong in ["", "A", "==", "AQID===", "AQ ID", "AQ=D", "AQI-", "äöü"] {
            assert_eq!(key(wrong), None, "{wrong:?}");
        }
    }
}

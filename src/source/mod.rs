//! Who is calling: the configured sources, and the proof of where a request comes from.
//!
//! How a provider signs is data (`config/providers`), compiled into a [`Scheme`] when the configuration is read; no
//! provider's name stands in this module. Everything that is wrong comes out at once, and a source that could let
//! anybody in by accident, without a secret or with one that everybody knows, is not made.

mod backing;
mod certificates;
mod enrolment;
mod forward_auth;
mod keyring;
mod sealed_query;
mod streamed;
#[cfg(test)]
mod tests;
mod web_client;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Method;

use self::certificates::CertificateFetches;
use self::enrolment::EnrolmentWindow;
pub use self::enrolment::PendingSecret;
use self::forward_auth::ServiceQuestions;
pub use self::keyring::Keyring;
pub use self::streamed::Streamed;
pub use self::web_client::WebClient;
use crate::attachment::Fetcher;
use crate::config::{
    Ack, Config, Located, OnUnmappable, Problems, Provider, ReplayWindow, Respond, Secret,
    SourceConfig, near_provider,
};
use crate::mapping::getter::Getter;
use crate::mapping::{Mapped, Mapping, better};
use crate::model::{
    DeliveryId, ENROL, Marks, NewDelivery, Proof, ProofMark, Received, Refusal, Strength,
    Timestamp, TokenClaims, UpstreamIds, UsedProof, Verified, Verify,
};
use crate::verify::{
    Challenge, ChallengeResponse, CheckConfig, DryRun, ForwardAuthProof, Prepared, RedactedRequest,
    Scheme, allowed_methods, compile_source, inflated_body, redacted, same,
};

/// The configured sources, by name.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Arc<Source>>);

/// One configured way in, compiled.
#[derive(Debug)]
pub struct Source {
    /// As written.
    pub config: SourceConfig,
    /// How its callers are known.
    pub scheme: Scheme,
    /// The same without the secrets that have ended, each from when on it holds, the first first.
    later: Vec<(Timestamp, Scheme)>,
    /// What its events say.
    pub mapping: Mapping,
    /// The answer its sender wants to an accepted event.
    pub ack: Ack,
    /// The largest body, where the source or its provider says.
    pub max_body: Option<u64>,
    /// How long what proves a request counts as used.
    pub replay_window: ReplayWindow,
    /// How long what is kept of it is kept, about.
    kept_for: Duration,
    /// Whether its sender tries again when it is turned away.
    pub sender_retries: bool,
    /// The part of a run's task object that its callers get.
    pub getter: Option<Getter>,
    /// How long a caller waits for a run's end, where the source answers with it.
    pub wait: Duration,
    /// What names its conversations at the upstream.
    ids: Arc<UpstreamIds>,
    /// The channel that keeps the files which payloads only name.
    channel: Option<Fetcher>,
    challenges: Vec<Challenge>,
    enrolment: Option<Enrolment>,
    /// To explain refusals with, and when that was last done.
    written: Option<CheckConfig>,
    explained: Mutex<Option<Timestamp>>,
    fetches: CertificateFetches,
    questions: ServiceQuestions,
}

/// How often refusals of a source are explained, and of which size: it takes as long as judging some dozens of them.
const EXPLAIN_EVERY: Duration = Duration::from_secs(5);
const EXPLAIN_BYTES: usize = 64 * 1024;

/// What it takes to have a secret brought by a handshake.
#[derive(Debug)]
struct Enrolment {
    window: EnrolmentWindow,
    /// The provider, and whether the public address is known: to compile the scheme again.
    provider: Provider,
    has_public_url: bool,
    /// The scheme with the secrets that were brought since the start, and those secrets.
    now: ArcSwapOption<(Scheme, SourceConfig)>,
}

/// How long the proof of a request that is passed on counts as used at most.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a caller waits where nobody says how long it would.
const WAIT: Duration = Duration::from_secs(9);

/// What is left of a sender's own deadline for the way back.
const WAY_BACK: Duration = Duration::from_secs(1);

impl Sources {
    /// Compiles every source; what cannot be compiled is a problem.
    pub fn compile(config: &Config, problems: &Problems) -> Self {
        let mut all = BTreeMap::new();
        for source in &config.sources {
            if let Some(compiled) = Source::compile(source, config, problems) {
                compiled.weigh(problems);
                all.insert(source.name.clone(), Arc::new(compiled));
            }
        }
        for source in all.values() {
            apart(source, &all, problems);
        }
        Self(all)
    }

    /// The same, with what the inbox names conversations with, and what makes marks around what strangers say. Without
    /// it both end with the process.
    pub fn of_inbox(mut self, ids: &Arc<UpstreamIds>, marks: &Marks) -> Self {
        for source in self.0.values_mut() {
            let source = Arc::get_mut(source)
                .expect("sources that were just compiled are in nobody else's hands");
            source.ids = ids.clone();
            source.mapping.mark_with(marks.clone());
        }
        self
    }

    /// A source by name.
    pub fn get(&self, name: &str) -> Option<&Arc<Source>> {
        self.0.get(name)
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.values()
    }
}

impl Source {
    fn compile(source: &SourceConfig, config: &Config, problems: &Problems) -> Option<Self> {
        let provider = provider(source, config, problems);
        let has_public_url = !config.server.public_url.is_empty();
        let (scheme, challenges) = compile_source(source, provider, has_public_url, problems);
        let (event_id, event_type) = match &scheme {
            Some(scheme) => (scheme.event_id.as_slice(), scheme.event_type.as_slice()),
            None => Default::default(),
        };
        let mapping = Mapping::compile(source, provider, event_id, event_type, problems);
        let getter = getter(source, problems);
        let brought = challenges
            .as_ref()
            .is_some_and(|all| all.iter().any(Challenge::brings_secret));
        let enrolment = match (&source.enrol_file, provider) {
            (Some(file), Some(provider)) if brought => Some(Enrolment {
                window: EnrolmentWindow::new(file.clone()),
                provider: provider.clone(),
                has_public_url,
                now: ArcSwapOption::empty(),
            }),
            _ => None,
        };
        let replay_window = replay_window(source, provider, scheme.as_ref());
        let later = later(source, provider, has_public_url, problems);
        Some(Self {
            later,
            config: source.clone(),
            scheme: scheme?,
            mapping: mapping?,
            ack: provider
                .map(|provider| provider.ack.clone())
                .unwrap_or_default(),
            max_body: source
                .max_body
                .or(provider.and_then(|provider| provider.max_body)),
            replay_window,
            kept_for: source
                .keep
                .all
                .or(config.inbox.keep.all)
                .unwrap_or(KEPT_FOR)
                .min(KEPT_FOR),
            sender_retries: provider.and_then(|provider| provider.retries.as_deref())
                != Some("never"),
            getter: getter?,
            wait: source
                .wait_timeout
                .unwrap_or_else(|| within(provider.and_then(|provider| provider.deadline))),
            ids: Arc::default(),
            channel: provider.and_then(|provider| Fetcher::of(source, provider)),
            challenges: challenges?,
            enrolment,
            written: CheckConfig::of_source(source, provider),
            explained: Mutex::new(None),
            fetches: CertificateFetches::default(),
            questions: ServiceQuestions::default(),
        })
    }

    /// What an event of this source owes; see [`SourceConfig::owed`].
    pub fn owed(&self, id: DeliveryId, thread: Option<&str>) -> Option<NewDelivery> {
        self.config.owed(id, thread, &self.ids)
    }

    /// What may be kept of a request.
    pub fn kept(&self, received: &Received) -> RedactedRequest {
        redacted(&self.scheme, received)
    }

    /// How its callers are known at a moment: secrets end.
    fn scheme_at(&self, now: Timestamp) -> &Scheme {
        let later = self.later.iter().rev().find(|(from, _)| *from <= now);
        later.map_or(&self.scheme, |(_, scheme)| scheme)
    }

    /// When a secret of it ends, by what it goes by.
    pub fn ends(&self, secret: &str) -> Option<Timestamp> {
        self.config
            .secrets
            .iter()
            .find(|known| known.name() == secret)?
            .until()
    }

    /// The methods it answers to, as an `Allow` header says them.
    pub fn allow(&self) -> &'static str {
        allowed_methods(&self.challenges)
    }

    /// Whether compressed bodies are taken.
    pub const fn takes_compressed(&self) -> bool {
        self.scheme.compressed.is_some()
    }

    /// The request with the body that is signed: of a compressed one perhaps what it was before.
    pub fn opened(&self, received: Received) -> Result<Received, Refusal> {
        self.scheme.opened(received)
    }

    /// Has at hand what judging a request takes; see [`Scheme::prepare`].
    /// Where another service judges, it is asked here.
    pub async fn prepare(
        &self,
        received: &Received,
        web: &dyn WebClient,
        now: Timestamp,
    ) -> Result<Prepared, Refusal> {
        let scheme = self.scheme_at(now);
        let prepared = match scheme.asks() {
            // No other method brings an event.
            Some(service) if received.method == Method::POST => {
                self.questions.ask(service, received, web).await
            }
            _ => self
                .fetches
                .prepare(scheme, received, web, now)
                .await
                .map(|()| Prepared::default()),
        };
        match prepared {
            Err(refusal) if self.config.enforce => Err(self.rejected(refusal)),
            Err(_) => Ok(Prepared::default()),
            prepared => prepared,
        }
    }

    /// Answers a provider's challenge. None: it is none, and the request goes its way; only a POST has one to go.
    pub fn handshake(
        &self,
        received: &Received,
        now: Timestamp,
    ) -> Option<Result<ChallengeResponse, Refusal>> {
        let brought = self
            .enrolment
            .as_ref()
            .map(|enrolment| enrolment.now.load());
        let scheme = brought
            .as_ref()
            .and_then(|now| now.as_deref())
            .map_or_else(|| self.scheme_at(now), |(scheme, _)| scheme);
        let met = self
            .challenges
            .iter()
            .find_map(|challenge| challenge.answer(received, scheme, now));
        match met {
            None if received.method != Method::POST => Some(Err(Refusal::Method(self.allow()))),
            None => None,
            Some(Err(refusal)) => Some(Err(self.rejected(refusal))),
            Some(Ok(met)) => Some(match met.secret {
                None => Ok(met.answer),
                Some(secret) => self
                    .enrol(scheme, received, &secret, now)
                    .map(|()| met.answer),
            }),
        }
    }

    /// Takes a secret that a handshake brought, if the operator has opened the window to who brings it. It counts when the
    /// operator has confirmed it.
    fn enrol(
        &self,
        scheme: &Scheme,
        received: &Received,
        secret: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        // Brought again, because the answer was lost: whoever brings it knows it.
        if scheme.keys().iter().any(|key| same(key.expose(), secret)) {
            return Ok(());
        }
        let closed = || {
            let cause = "a handshake brought a secret, and no window is open to who brought it: \
                         `sluicegate source enrol` prints the address that the provider has to be given";
            Refusal::Challenge(cause.into())
        };
        let enrolment = self.enrolment.as_ref().ok_or_else(closed)?;
        let text = std::str::from_utf8(secret).map_err(|_| closed())?;
        let query = form_urlencoded::parse(received.query().as_bytes());
        let words: Vec<_> = query
            .filter(|(name, _)| name == ENROL)
            .map(|(_, word)| word)
            .collect();
        let word = if let [word] = words.as_slice() {
            Some(&**word)
        } else {
            None
        };
        if !enrolment.window.take(word, text, received.peer, now) {
            return Err(closed());
        }
        if let Some(brought) = enrolment.window.brought() {
            let (source, peer) = (&self.config.name, brought.peer);
            tracing::info!(
                audit = "source.brought",
                source,
                fingerprint = brought.fingerprint,
                %peer,
                "a handshake brought a secret, which counts when an operator has confirmed it"
            );
        }
        Ok(())
    }

    /// Opens the window in which a handshake may bring a secret, and says the word that the provider's address must have
    /// behind `?enrol=`. None: this source takes none.
    pub fn open_window(&self, until: Timestamp) -> Option<Result<String, String>> {
        self.enrolment
            .as_ref()
            .map(|enrolment| enrolment.window.open(until))
    }

    /// What a handshake brought and no operator has confirmed yet.
    pub fn brought(&self) -> Option<PendingSecret> {
        self.enrolment.as_ref()?.window.brought()
    }

    /// Has a secret count that a handshake brought: the one with this fingerprint. None: no such secret waits.
    pub fn confirm_secret(&self, fingerprint: &str, now: Timestamp) -> Option<Result<(), String>> {
        let enrolment = self.enrolment.as_ref()?;
        let secret = enrolment.window.waiting(fingerprint)?;
        Some(self.adopt(enrolment, &secret, now))
    }

    fn adopt(&self, enrolment: &Enrolment, secret: &str, now: Timestamp) -> Result<(), String> {
        let mut config = enrolment
            .now
            .load()
            .as_deref()
            .map_or_else(|| self.config.clone(), |(_, config)| config.clone());
        let name = format!("enrolled at {now}");
        config.secrets.push(Located {
            value: Secret::new(name, secret),
            place: self.config.place.clone(),
        });
        let problems = Problems::default();
        let (Some(scheme), _) = compile_source(
            &config,
            Some(&enrolment.provider),
            enrolment.has_public_url,
            &problems,
        ) else {
            return Err("the secret that was brought is none for this scheme".into());
        };
        enrolment
            .window
            .keep(secret)
            .map_err(|error| format!("cannot keep the secret: {error}"))?;
        enrolment.now.store(Some(Arc::new((scheme, config))));
        enrolment.window.settle();
        Ok(())
    }

    /// Proves the origin, or says why not. A source that does not enforce lets everything pass, and says what was
    /// wrong.
    pub fn verify(
        &self,
        received: Received,
        now: Timestamp,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        let brought = self
            .enrolment
            .as_ref()
            .map(|enrolment| enrolment.now.load());
        let scheme = brought
            .as_ref()
            .and_then(|now| now.as_deref())
            .map_or_else(|| self.scheme_at(now), |(scheme, _)| scheme);
        let verified = if self.config.enforce {
            received.verify(scheme, now)
        } else {
            received.verify(&ObserveOnly(scheme), now)
        };
        self.ended(scheme, verified)
    }

    /// The same of a request that was prepared; see [`Source::prepare`]. The headers that another service answered with
    /// take the place of what the sender wrote there.
    pub fn verify_prepared(
        &self,
        mut received: Received,
        prepared: Prepared,
        now: Timestamp,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        let scheme = self.scheme_at(now);
        let Some(ask) = scheme.asks() else {
            return self.verify(received, now);
        };
        ask.strip(&mut received.headers);
        let (said, headers) = prepared.said();
        received.headers.extend(headers);
        let told = ForwardAuthProof { scheme, said };
        let verified = if self.config.enforce {
            received.verify(&told, now)
        } else {
            received.verify(&ObserveOnly(&told), now)
        };
        self.ended(scheme, verified)
    }

    fn ended(
        &self,
        scheme: &Scheme,
        verified: Result<Verified, Box<(Received, Refusal)>>,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        match verified {
            Ok(verified) => inflated(scheme, verified, self.config.enforce),
            Err(mut refused) => {
                refused.1 = self.rejected(refused.1);
                Err(refused)
            }
        }
    }

    /// What probably went wrong with a request that was refused, now and then and for small ones.
    pub fn hint(&self, received: &Received, now: Timestamp) -> Option<String> {
        if received.body.len() > EXPLAIN_BYTES {
            return None;
        }
        {
            let mut explained = self
                .explained
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if explained.is_some_and(|at| at <= now && now.since(at) < EXPLAIN_EVERY) {
                return None;
            }
            *explained = Some(now);
        }
        // With all secrets it may be right.
        let proving = self
            .scheme
            .judge(received, now)
            .ok()
            .and_then(|proof| proof.secret);
        if let Some(secret) = proving
            && let Some(until) = self.ends(&secret)
        {
            return Some(format!(
                "it was made with the secret {secret}, which ended at {until}"
            ));
        }
        DryRun::compile(self.written.clone()?)
            .ok()?
            .hint(received, now)
    }

    /// The items that a proved request brings. One that is passed on stays whole: its caller waits for one answer.
    pub fn items(&self, verified: Verified) -> Result<Vec<Verified>, Refusal> {
        if self.passes_on() {
            Ok(vec![verified])
        } else {
            self.mapping.items(verified)
        }
    }

    /// What a proved request says, as the mapping has it. One that brings files, or names some that its channel keeps,
    /// needs no prompt.
    pub fn apply(&self, verified: &Verified, has_files: bool) -> Result<Mapped, Refusal> {
        let named = |channel: &Fetcher| !channel.named(&verified.request().body, 1).is_empty();
        self.mapping.apply(
            verified,
            has_files || self.channel.as_ref().is_some_and(named),
        )
    }

    /// The same where nothing is lost of what was proved: a request that cannot be mapped is kept with the reason, so that
    /// an operator can mend the mapping and replay it. A caller who waits for an answer is told at once instead, and so
    /// is one whose request nothing proves.
    pub fn apply_or_keep(&self, verified: &Verified, has_files: bool) -> Result<Mapped, Refusal> {
        self.apply(verified, has_files)
            .or_else(|refusal| match self.keeps(verified, &refusal) {
                true => Ok(self.mapping.unmapped(verified, refusal.cause())),
                false => Err(refusal),
            })
    }

    /// Whether a request is kept although it cannot be mapped, for this reason.
    pub fn keeps(&self, verified: &Verified, refusal: &Refusal) -> bool {
        let config = &self.config;
        config.on_unmappable == OnUnmappable::Keep
            && config.respond == Respond::Ack
            && !matches!(
                verified.proof().strength,
                Strength::None | Strength::Observed(_)
            )
            && matches!(
                refusal,
                Refusal::Malformed(_) | Refusal::Unmappable(_) | Refusal::Unsupported(_)
            )
    }

    /// Whether its requests are passed on and not kept.
    pub const fn passes_on(&self) -> bool {
        matches!(self.config.respond, Respond::Proxy | Respond::Stream)
    }

    /// The proofs that a request uses up. None: nothing is proved, or the source minds no repetition.
    pub fn uses(&self, verified: &Verified) -> Option<UsedProof> {
        let marks = &verified.proof().marks;
        if marks.is_empty() || self.replay_window == ReplayWindow::Lasts(Duration::ZERO) {
            return None;
        }
        // Whoever shows a secret can say the same again in other words, and a question that is asked twice wants two
        // answers.
        if self.passes_on()
            && matches!(verified.proof().strength, Strength::Token | Strength::Asked)
        {
            return None;
        }
        let at = verified.request().at;
        let until = match self.replay_window {
            // There is no event that could keep it.
            ReplayWindow::Kept if self.passes_on() => Some(at + self.kept_for),
            ReplayWindow::Kept => None,
            ReplayWindow::Lasts(window) => Some(at + window),
        };
        let mut marks: Vec<ProofMark> = marks
            .iter()
            .map(|mark| mark.at_source(&self.config.name))
            .collect();
        marks.sort_unstable();
        marks.dedup();
        Some(UsedProof { marks, until })
    }

    /// The address that a proved request asks to be fetched before the provider sends events. None: it is an event.
    pub fn confirms(&self, verified: &Verified) -> Result<Option<String>, Refusal> {
        match &self.scheme.confirm {
            Some(confirm) => confirm.address(verified.request(), &self.scheme.document),
            None => Ok(None),
        }
    }

    /// A refusal with the status that the provider wants.
    fn rejected(&self, refusal: Refusal) -> Refusal {
        match (self.scheme.reject_status, &refusal) {
            (Some(status), Refusal::Origin(..)) => refusal.answered(status),
            _ => refusal,
        }
    }
}

/// Lets everything pass, and says what was wrong.
struct ObserveOnly<'s, V>(&'s V);

impl<V: Verify> Verify for ObserveOnly<'_, V> {
    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        match self.0.judge(received, now) {
            Err(Refusal::Origin(fault, _)) => Ok(Proof {
                strength: Strength::Observed(fault),
                secret: None,
                marks: Vec::new(),
            }),
            judged => judged,
        }
    }

    fn claims(&self, received: &Received) -> Option<TokenClaims> {
        self.0.claims(received)
    }
}

/// What is proved, with the body as it was before it was compressed.
fn inflated(
    scheme: &Scheme,
    verified: Verified,
    enforce: bool,
) -> Result<Verified, Box<(Received, Refusal)>> {
    if scheme.compressed.is_none() {
        return Ok(verified);
    }
    match inflated_body(&verified.request().headers, &verified.request().body) {
        Ok(Some(body)) => {
            let verified = verified.with_body(body);
            match scheme.bodies.judge(verified.request()) {
                Err((fault, cause)) if enforce => Err(Box::new((
                    verified.into_parts().0,
                    Refusal::Origin(fault, cause),
                ))),
                _ => Ok(verified),
            }
        }
        Ok(None) => Ok(verified),
        Err(refusal) => Err(Box::new((verified.into_parts().0, refusal))),
    }
}

/// How long what proves a request of a source counts as used. A secret that callers show proves nothing of a request, so
/// that two alike may be meant, whatever ids there are.
fn replay_window(
    source: &SourceConfig,
    provider: Option<&Provider>,
    scheme: Option<&Scheme>,
) -> ReplayWindow {
    let said = source.replay_window;
    let unlike = || {
        let (provider, scheme) = (provider?, scheme?);
        let unlike = provider
            .repeats
            .map_or_else(|| scheme.names_or_times(), |repeats| !repeats);
        (unlike && scheme.is_signed()).then_some(ReplayWindow::Kept)
    };
    said.or_else(unlike).unwrap_or(ReplayWindow::USUAL)
}

/// How long a caller waits whose sender gives up after `deadline`.
fn within(deadline: Option<Duration>) -> Duration {
    deadline.map_or(WAIT, |deadline| {
        deadline.saturating_sub(WAY_BACK).max(deadline / 2)
    })
}

/// The compiled getter of a source; the outer none when it cannot be compiled.
fn getter(source: &SourceConfig, problems: &Problems) -> Option<Option<Getter>> {
    let Some(written) = &source.getter else {
        return Some(None);
    };
    match Getter::parse(written) {
        Ok(getter) => {
            let right = better(written).unwrap_or_else(|| written.value.clone());
            let right = right.trim_start_matches("$.").replace("[*]", "");
            let is_dotted = !right.contains(['$', '[']);
            if right != written.value && is_dotted {
                problems.warn(
                    &written.place,
                    format!(
                        "getter {:?} is written as other programs write a path, and finds nothing here",
                        written.value
                    ),
                    format!("did you mean {right:?}?"),
                );
            }
            Some(Some(getter))
        }
        Err(what) => {
            let hint = match better(written) {
                Some(right) => format!("did you mean {right:?}?"),
                None => "write a dotted path into the task object, like \"result\" or \"result.summary\"".to_owned(),
            };
            problems.error_hint(
                &written.place,
                format!("getter {:?} is no path: {what}", written.value),
                hint,
            );
            None
        }
    }
}

/// The provider of a source; none for one of its own.
fn provider<'c>(
    source: &SourceConfig,
    config: &'c Config,
    problems: &Problems,
) -> Option<&'c Provider> {
    let name = source.provider.value.as_str();
    match (config.providers.get(name), name) {
        (Some(provider), _) => Some(provider),
        // A missing name is reported where the source is read.
        (None, "") => None,
        (None, "custom") => {
            if source.verify.is_none() {
                problems.error_hint(
                    &source.provider.place,
                    format!("source {} does not say how its callers are known", source.name),
                    "a custom source needs a verify table, for example verify = { signature = \"header:X-Signature\" }",
                );
            }
            None
        }
        (None, name) => {
            let hint = match near_provider(&config.providers, name) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    "`sluicegate provider list WORD` looks for one; custom takes a verify table of your own".to_owned()
                }
            };
            let what = format!("no provider is called \"{}\"", name.escape_debug());
            problems.error_hint(&source.provider.place, what, hint);
            None
        }
    }
}

/// The most moments at which secrets of one source end.
const MOST_ENDS: usize = 16;

/// The checks of a source for the time after each of its secrets has ended.
fn later(
    source: &SourceConfig,
    provider: Option<&Provider>,
    has_public_url: bool,
    problems: &Problems,
) -> Vec<(Timestamp, Scheme)> {
    let mut ends: Vec<Timestamp> = source
        .secrets
        .iter()
        .filter_map(|secret| secret.until())
        .collect();
    ends.sort_unstable();
    ends.dedup();
    if ends.len() > MOST_ENDS {
        let what = format!(
            "secrets of source {} end at more than {MOST_ENDS} moments",
            source.name
        );
        problems.error_hint(&source.place, what, "remove those that have ended");
        return Vec::new();
    }
    // What is wrong is told by the check with all secrets.
    let quiet = Problems::default();
    let after = |end: Timestamp| {
        let mut config = source.clone();
        config
            .secrets
            .retain(|secret| secret.until().is_none_or(|until| until > end));
        Some((
            end,
            compile_source(&config, provider, has_public_url, &quiet).0?,
        ))
    };
    ends.into_iter().filter_map(after).collect()
}

/// A secret that signs for whoever asks at one source must not be the secret of another kind of source.
fn apart(source: &Source, all: &BTreeMap<String, Arc<Source>>, problems: &Problems) {
    if !source
        .challenges
        .iter()
        .any(|challenge| challenge.signs_for_strangers().is_some())
    {
        return;
    }
    let others = all
        .values()
        .filter(|other| other.config.provider.value != source.config.provider.value);
    for other in others {
        let shares = |secret: &&Located<Secret>| {
            source
                .config
                .secrets
                .iter()
                .any(|known| same(known.expose(), secret.expose()))
        };
        if let Some(secret) = other.config.secrets.iter().find(shares) {
            let what = format!(
                "source {} has the secret of source {}, whose handshake signs with it for whoever asks",
                other.config.name, source.config.name
            );
            problems.error_hint(
                &secret.place,
                what,
                "give one of the two a secret of its own",
            );
        }
    }
}

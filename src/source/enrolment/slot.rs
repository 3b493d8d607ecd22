//! Slot for one brought secret: opened by a word, filled once, and kept in a file when the operator has confirmed it.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use crate::config::private::open_private;
use crate::model::Timestamp;
use crate::verify::same;

/// Number of brought secrets that are kept; the oldest is dropped for another.
const MOST: usize = 16;

/// Slot of a source: open or closed, with the secret that it has taken and the file that confirmed ones go to.
#[derive(Debug)]
pub(in crate::source) struct EnrolmentSlot {
    state: Mutex<EnrolmentState>,
    file: PathBuf,
}

#[derive(Debug, Default)]
struct EnrolmentState {
    open: Option<Open>,
    brought: Option<UnconfirmedSecret>,
}

/// An open slot.
struct Open {
    until: Timestamp,
    word: String,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "open until {}", self.until)
    }
}

/// A secret that came in and does not count yet.
struct UnconfirmedSecret {
    secret: String,
    about: PendingSecret,
}

impl std::fmt::Debug for UnconfirmedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.about.fmt(f)
    }
}

/// Facts about a brought secret that an operator compares before it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingSecret {
    /// The beginning of its SHA-256.
    pub fingerprint: String,
    /// The address that brought it.
    pub peer: IpAddr,
    /// The time at which it was brought.
    pub at: Timestamp,
}

impl EnrolmentSlot {
    /// A closed slot.
    pub(in crate::source) fn new(file: PathBuf) -> Self {
        Self {
            state: Mutex::default(),
            file,
        }
    }

    /// Opens the slot and gives the word that opens it to a caller. A secret that waited to be confirmed is forgotten.
    pub(in crate::source) fn open(&self, until: Timestamp) -> Result<String, String> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "the operating system gives no random numbers".to_owned())?;
        let word = hex::encode(bytes);
        *self.state() = EnrolmentState {
            open: Some(Open {
                until,
                word: word.clone(),
            }),
            brought: None,
        };
        Ok(word)
    }

    /// Takes a secret from a caller who knows the word, and closes the slot. False: it is not open to this caller.
    pub(in crate::source) fn take(
        &self,
        word: Option<&str>,
        secret: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> bool {
        let mut state = self.state();
        // Brought again, because the answer was lost.
        if state
            .brought
            .as_ref()
            .is_some_and(|pending| same(pending.secret.as_bytes(), secret.as_bytes()))
        {
            return true;
        }
        let is_right = |open: &Open| {
            now <= open.until
                && word.is_some_and(|word| same(open.word.as_bytes(), word.as_bytes()))
        };
        if !state.open.as_ref().is_some_and(is_right) {
            return false;
        }
        let about = PendingSecret {
            fingerprint: fingerprint(secret),
            peer,
            at: now,
        };
        *state = EnrolmentState {
            open: None,
            brought: Some(UnconfirmedSecret {
                secret: secret.to_owned(),
                about,
            }),
        };
        true
    }

    /// The secret that waits to be confirmed.
    pub(in crate::source) fn brought(&self) -> Option<PendingSecret> {
        self.state()
            .brought
            .as_ref()
            .map(|pending| pending.about.clone())
    }

    /// The secret with this fingerprint, where it waits to be confirmed.
    pub(in crate::source) fn waiting(&self, fingerprint: &str) -> Option<String> {
        let state = self.state();
        let pending = state.brought.as_ref()?;
        same(pending.about.fingerprint.as_bytes(), fingerprint.as_bytes())
            .then(|| pending.secret.clone())
    }

    /// Forgets the secret that waited, because it counts now.
    pub(in crate::source) fn settle(&self) {
        self.state().brought = None;
    }

    fn state(&self) -> MutexGuard<'_, EnrolmentState> {
        self.state.lock()
    }

    /// Adds a secret to the file, which only its owner reads. It is on the disk when this returns.
    pub(in crate::source) fn keep(&self, secret: &str) -> std::io::Result<()> {
        let mut lines = match std::fs::read_to_string(&self.file) {
            Ok(text) => text
                .lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        lines.push(secret.to_owned());
        let text = lines[lines.len().saturating_sub(MOST)..].join("\n") + "\n";
        let folder = self
            .file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.file.with_file_name(name);
        let mut file = open_private(&new, false)?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

/// The beginning of a secret's SHA-256: it distinguishes secrets and reveals none.
fn fingerprint(secret: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(secret.as_bytes()));
    digest.truncate(16);
    digest
}

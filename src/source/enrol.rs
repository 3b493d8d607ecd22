//! Secrets that a provider's handshake brings. The request that brings one is signed by nobody, so it is taken only in
//! a window that an operator opens, one for each window, and kept in the file that the operator names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Timestamp;

/// How many brought secrets are kept; with more the oldest goes.
const MOST: usize = 16;

/// The windows of the sources that have one, by name.
#[derive(Clone, Debug, Default)]
pub struct Enrolments(pub(super) BTreeMap<String, Arc<Window>>);

/// Whether a source takes a secret now, and where it goes.
#[derive(Debug)]
pub(super) struct Window {
    until: Mutex<Option<Timestamp>>,
    file: PathBuf,
}

impl Enrolments {
    /// Opens a source's window. False: the source has none.
    pub fn open(&self, source: &str, until: Timestamp) -> bool {
        let window = self.0.get(source);
        if let Some(window) = window {
            *window.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        window.is_some()
    }
}

impl Window {
    /// A window that is closed.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { until: Mutex::new(None), file }
    }

    /// Closes it. None: it was not open.
    pub(super) fn close(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|until| now <= *until)
    }

    /// Opens it again, for a secret that could not be kept.
    pub(super) fn reopen(&self, until: Timestamp) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Adds a secret to the file, which only its owner reads. It is on the disk when this returns.
    pub(super) fn keep(&self, secret: &str) -> std::io::Result<()> {
        let mut lines = match std::fs::read_to_string(&self.file) {
            Ok(text) => text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        lines.push(secret.to_owned());
        let text = lines[lines.len().saturating_sub(MOST)..].join("\n") + "\n";
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.file.with_file_name(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

/// Whether what a handshake brought can be a secret: visible, and long enough not to be guessed.
pub(super) fn is_secret(brought: &[u8]) -> bool {
    (16..=512).contains(&brought.len()) && brought.iter().all(u8::is_ascii_graphic)
}

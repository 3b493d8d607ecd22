//! The inbox's file, and the lock beside it (`<file>.lock`) by which one process has it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::inbox::InboxError;

/// The file of an inbox, locked by this process. The lock ends with the process, or when this is dropped unused.
#[derive(Debug)]
pub struct InboxFile {
    /// Its path.
    pub(super) path: PathBuf,
    /// The lock beside it.
    pub(super) lock: File,
}

impl InboxFile {
    /// Makes the folder and the file where they are missing, and takes the lock. Refused when another process has it.
    pub async fn lock(path: &Path) -> Result<Self, InboxError> {
        let path = path.to_owned();
        let locked = tokio::task::spawn_blocking(move || {
            prepare_files(&path).map(|lock| Self { path, lock })
        });
        let failed = |cause: String| InboxError::Engine {
            doing: "open",
            cause,
        };
        locked
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tries to take the lock before it counts as held, and the time between two of them.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// Makes the folder and the file, for their owner only, and takes the lock.
pub(super) fn prepare_files(path: &Path) -> Result<File, String> {
    let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    }
    let beside = beside(path);
    let lock = own_file(&beside).map_err(|error| at(&beside, error))?;
    take(&lock).map_err(|error| match error {
        TryLockError::WouldBlock => format!("{} is open in another process", path.display()),
        TryLockError::Error(error) => at(&beside, error),
    })?;
    own_file(path).map_err(|error| at(path, error))?;
    Ok(lock)
}

/// Takes the lock. A process that is ending, or a child that has not begun its own program yet, may hold it a moment longer.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread is one for blocking work, and waits for a moment at most"
)]
fn take(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            end => return end,
        }
    }
    lock.try_lock()
}

pub(super) fn own_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Makes the file's name as durable as what is in it, and its folder's too.
pub(super) fn sync_folder(path: &Path) -> Result<(), String> {
    let path = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    for folder in path.ancestors().skip(1).take(2) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        // A parent that may not be read is not ours and was there before.
        match synced {
            Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                return Err(format!("{}: {error}", folder.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

//! Files in a folder of this machine: written under a temporary name, synced, renamed, and the folder synced.
//!
//! A thread of its own writes and digests each file, at most a few pieces behind the reader of the request, so that memory
//! does not grow and the two share the work.

use std::fs::{self, File};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{FileBytes, FileLabel, Sink, Store, StoreError, drawer};
use crate::config::private::open_private;
use crate::model::{AttachmentId, Timestamp};

/// The folder of files that are not complete.
const BEGUN: &str = "begun";

/// The largest number of pieces that wait for the writing thread.
const WAITING: usize = 8;

/// The largest piece that is read at once, in bytes.
const PIECE: usize = 64 * 1024;

/// A folder of files.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// The lock of the folder; `None` where another process had it first.
    alone: Option<File>,
}

impl Folder {
    /// Opens the folder, and creates it where it is missing.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        make_folder(&root.join(BEGUN))?;
        let lock = open_private(&root.join("lock"), false)?;
        let alone = lock.try_lock().is_ok().then_some(lock);
        Ok(Self {
            root: root.to_owned(),
            alone,
        })
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        // Keys are made by the gateway; a text that is not a key reaches no file.
        AttachmentId::of_key(key)
            .filter(|_| !key.contains(['/', '\\']))
            .ok_or(StoreError::Missing)?;
        Ok(self
            .root
            .join(drawer(key).ok_or(StoreError::Missing)?)
            .join(key))
    }
}

#[async_trait]
impl Store for Folder {
    async fn begin(&self, key: &str, _: &FileLabel<'_>) -> Result<Box<dyn Sink>, StoreError> {
        let (place, begun) = (self.path(key)?, self.root.join(BEGUN).join(key));
        let (pieces, arriving) = mpsc::channel(WAITING);
        let thread = spawn_blocking(move || write(begun, arriving));
        Ok(Box::new(FolderSink {
            pieces: Some(pieces),
            thread: Some(thread),
            begun: None,
            place,
        }))
    }

    async fn open(&self, key: &str, range: Range<u64>) -> Result<FileBytes, StoreError> {
        let path = self.path(key)?;
        let opened = spawn_blocking(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(range.start))?;
            Ok((file, range.end.saturating_sub(range.start)))
        });
        let (file, length) = joined(opened.await, "read a file")?;
        let file = tokio::fs::File::from_std(file);
        let pieces = stream::try_unfold((file, length), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let mut piece = BytesMut::with_capacity(most);
            let read = (&mut file)
                .take(most as u64)
                .read_buf(&mut piece)
                .await
                .map_err(|e| failed("read a file", &e))?;
            if read == 0 {
                let cause = "it is shorter than it was".to_owned();
                return Err(StoreError::Failed {
                    doing: "read a file",
                    cause,
                });
            }
            Ok(Some((piece.freeze(), (file, left - read as u64))))
        });
        Ok(Box::pin(pieces))
    }

    async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let removed = spawn_blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        joined(removed.await, "remove a file")
    }

    async fn look(&self, number: u16, before: Timestamp) -> Result<Vec<String>, StoreError> {
        let (folder, begun) = (
            self.root.join(format!("{number:02x}")),
            self.root.join(BEGUN),
        );
        let looked = spawn_blocking(move || {
            if number == 0 {
                for key in older(&begun, before)? {
                    fs::remove_file(begun.join(key))?;
                }
            }
            older(&folder, before)
        });
        joined(looked.await, "look through a folder")
    }

    async fn link(&self, _: &str, _: Duration) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn is_ours_alone(&self) -> bool {
        self.alone.is_some()
    }
}

/// A file that is complete under its temporary name, and its digest.
type WrittenFile = (TemporaryFile, [u8; 32]);

/// A file on its way into a folder.
struct FolderSink {
    pieces: Option<mpsc::Sender<WriterCommand>>,
    thread: Option<JoinHandle<std::io::Result<WrittenFile>>>,
    begun: Option<TemporaryFile>,
    place: PathBuf,
}

/// An order to the writing thread. If no more orders come, it removes what it wrote.
enum WriterCommand {
    Piece(Bytes),
    End,
}

impl FolderSink {
    async fn tell(&mut self, next: WriterCommand) -> Result<(), StoreError> {
        let told = match &self.pieces {
            Some(pieces) => pieces.send(next).await.is_ok(),
            None => false,
        };
        if told {
            return Ok(());
        }
        // The thread has ended by itself, with a reason.
        Err(self.joined().await.err().unwrap_or_else(ended))
    }

    async fn joined(&mut self) -> Result<WrittenFile, StoreError> {
        self.pieces = None;
        let Some(thread) = self.thread.take() else {
            return Err(ended());
        };
        joined(thread.await, "write a file")
    }
}

#[async_trait]
impl Sink for FolderSink {
    async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.tell(WriterCommand::Piece(piece)).await
    }

    async fn finish(&mut self) -> Result<[u8; 32], StoreError> {
        self.tell(WriterCommand::End).await?;
        let (begun, sha256) = self.joined().await?;
        self.begun = Some(begun);
        Ok(sha256)
    }

    async fn place(mut self: Box<Self>) -> Result<(), StoreError> {
        let begun = self.begun.take().ok_or_else(ended)?;
        let place = std::mem::take(&mut self.place);
        joined(
            spawn_blocking(move || begun.place(&place)).await,
            "put a file at its place",
        )
    }
}

/// Removing a large file takes long, so it is done outside the runtime.
impl Drop for FolderSink {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.begun.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(begun));
        }
    }
}

/// A file under its temporary name. Dropping this removes it, unless it was put at its place.
struct TemporaryFile(Option<PathBuf>);

impl TemporaryFile {
    fn place(mut self, place: &Path) -> std::io::Result<()> {
        let Some(folder) = place.parent() else {
            return Err(ErrorKind::InvalidInput.into());
        };
        if !folder.is_dir() {
            make_folder(folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
        }
        if let Some(path) = &self.0 {
            fs::rename(path, place)?;
        }
        self.0 = None;
        sync_folder(folder)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(file = %path.display(), %error, "cannot remove a file that was begun, the sweep will");
        }
    }
}

/// Writes what arrives until the order to end; then the file is synced.
fn write(
    path: PathBuf,
    mut arriving: mpsc::Receiver<WriterCommand>,
) -> std::io::Result<WrittenFile> {
    let mut file = open_private(&path, true)?;
    let begun = TemporaryFile(Some(path));
    let mut digest = Sha256::new();
    while let Some(next) = arriving.blocking_recv() {
        match next {
            WriterCommand::Piece(piece) => {
                file.write_all(&piece)?;
                digest.update(&piece);
            }
            WriterCommand::End => {
                file.sync_all()?;
                return Ok((begun, digest.finalize().into()));
            }
        }
    }
    Err(std::io::Error::other("it was dropped"))
}

/// The names in a folder of files that were last written before a time. A folder that is not there is empty.
fn older(folder: &Path, before: Timestamp) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let written = match entry.metadata().and_then(|known| known.modified()) {
            Ok(written) => written.duration_since(UNIX_EPOCH).unwrap_or_default(),
            // The file was removed in between.
            Err(_) => continue,
        };
        let is_old = Timestamp::from_millis(0) + written < before;
        if let (true, Ok(name)) = (is_old, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn joined<T>(
    end: Result<std::io::Result<T>, tokio::task::JoinError>,
    doing: &'static str,
) -> Result<T, StoreError> {
    match end {
        Ok(done) => done.map_err(|error| failed(doing, &error)),
        Err(error) => Err(StoreError::Failed {
            doing,
            cause: error.to_string(),
        }),
    }
}

fn failed(doing: &'static str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace,
        ErrorKind::NotFound => StoreError::Missing,
        _ => StoreError::Failed {
            doing,
            cause: error.to_string(),
        },
    }
}

fn ended() -> StoreError {
    StoreError::Failed {
        doing: "write a file",
        cause: "it had ended already".into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::attachment::{Incoming, StagedFile};

    const LATER: Timestamp = Timestamp::from_seconds(i64::MAX / 2000);

    async fn taken(store: &Folder, pieces: &[&'static [u8]]) -> StagedFile {
        let mut incoming = Incoming::begin(store, "../../a.TXT", Some("text/plain; x=y"))
            .await
            .unwrap();
        for piece in pieces {
            incoming.take(Bytes::from_static(piece)).await.unwrap();
        }
        incoming.end(Timestamp::from_seconds(9)).await.unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all.extend(files(&path)),
                false if path.ends_with("lock") => {}
                false => all.push(path),
            }
        }
        all
    }

    async fn read(store: &Folder, key: &str, range: Range<u64>) -> Vec<u8> {
        let pieces: Vec<Bytes> = store
            .open(key, range)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn what_is_taken_in_is_there_when_it_is_placed_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        assert!(store.is_ours_alone() && !Folder::open(folder.path()).unwrap().is_ours_alone());
        let whole = taken(&store, &[b"hel", b"", b"lo"]).await;
        let key = whole.file().key.clone();
        assert_eq!(
            store.open(&key, 0..5).await.err(),
            Some(StoreError::Missing)
        );
        let file = whole.place().await.unwrap();
        assert_eq!(
            (file.name.as_str(), file.content_type.as_str(), file.size),
            ("a.TXT", "text/plain", 5)
        );
        assert_eq!(
            hex::encode(file.sha256),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(read(&store, &key, 0..5).await, b"hello");
        assert_eq!(read(&store, &key, 1..3).await, b"el");
        let drawer = u16::from_str_radix(drawer(&key).unwrap(), 16).unwrap();
        assert_eq!(
            store.look(drawer, LATER).await.unwrap(),
            std::slice::from_ref(&key)
        );
        assert_eq!(
            store
                .look(drawer, Timestamp::from_seconds(1))
                .await
                .unwrap(),
            [""; 0]
        );
        store.remove(&key).await.unwrap();
        store.remove(&key).await.unwrap();
        assert!(files(folder.path()).is_empty());
    }

    #[tokio::test]
    async fn t90_what_is_let_go_of_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let mut begun = Incoming::begin(&store, "a", None).await.unwrap();
        begun.take(Bytes::from_static(b"x")).await.unwrap();
        let whole = taken(&store, &[b"y"]).await;
        assert!(!files(folder.path()).is_empty());
        drop((begun, whole));
        let begun = std::time::Instant::now();
        while !files(folder.path()).is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{:?}",
                files(folder.path())
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_a_crash_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let left = folder.path().join(BEGUN).join("left");
        fs::write(&left, "x").unwrap();
        store.look(0, Timestamp::from_seconds(1)).await.unwrap();
        assert!(left.exists(), "it may still be written");
        store.look(0, LATER).await.unwrap();
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn t91_no_key_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let id = "0".repeat(32);
        for key in [
            "../x",
            "/etc/passwd",
            "",
            &format!("{id}./../../x"),
            &format!("{id}.a/b"),
        ] {
            assert_eq!(
                store.open(key, 0..1).await.err(),
                Some(StoreError::Missing),
                "{key}"
            );
        }
    }
}

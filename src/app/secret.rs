//! The token and the key where nobody configured them: made once, and kept beside the inbox.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::{Config, Secret};
use crate::inbox::seal::Sealer;

/// Where the token is kept when nobody configured one: beside the inbox.
pub fn admin_token_file(config: &Config) -> PathBuf {
    config.inbox.beside("admin.token")
}

/// The configured token, or one made beside the inbox.
pub(super) fn admin_token(config: &Config) -> anyhow::Result<Secret> {
    if let Some(token) = &config.admin.token {
        return Ok(token.clone());
    }
    let file = admin_token_file(config);
    if let Ok(text) = std::fs::read_to_string(&file)
        && text.trim().len() >= 32
    {
        return Ok(Secret::new("admin.token", text.trim()));
    }
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    write_private(&file, &token).with_context(|| format!("cannot write {}", file.display()))?;
    tracing::warn!(file = %file.display(), "admin.token is not set, made one and kept it here");
    Ok(Secret::new("admin.token", token))
}

/// Where the key is kept when nobody configured one: beside the inbox.
pub fn seal_key_file(config: &Config) -> PathBuf {
    config.inbox.beside("sluicegate.key")
}

/// A sealer with the configured key, or with one made beside the inbox; it knows those before as well.
pub fn sealer(config: &Config) -> anyhow::Result<Sealer> {
    Ok(current(config)?.with_old(&config.inbox.old_keys)?)
}

fn current(config: &Config) -> anyhow::Result<Sealer> {
    if let Some(key) = &config.inbox.key {
        return Ok(Sealer::new(key)?);
    }
    let file = seal_key_file(config);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Sealer::fresh_key()?;
            // A key that is half there would be worse than none.
            let new = file.with_extension("key.new");
            write_private(&new, &key).with_context(|| format!("cannot write {}", new.display()))?;
            std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))?;
            tracing::warn!(file = %file.display(), "inbox.key is not set, made one and kept it here");
            key
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    Sealer::new(&Secret::new(file.display().to_string(), text.trim())).context(
        "mend the file, or remove it: then what was sealed with the old key does not open, and its links are lost",
    )
}

/// Writes a file that only its owner reads, also where a file is there that others read. One that is another user's, or
/// no file of its own (a link, a pipe), is left as it is.
pub(crate) fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    // What is there is cut only once it is known to be ours.
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    let mut file = options.open(file)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let there = file.metadata()?;
        if !there.is_file() || there.nlink() > 1 || there.uid() != rustix::process::geteuid().as_raw() {
            return Err(std::io::Error::other("it is another user's file, or has other names: remove it first"));
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    file.set_len(0)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn security_f33_a_secret_is_written_where_nobody_else_reads_it_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/secret");
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        write_private(&file, "one").unwrap();
        assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), mode()), ("one\n", 0o600));
        std::fs::write(&file, "a longer text that others read").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&file, "two").unwrap();
        assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), mode()), ("two\n", 0o600));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(write_private(&link, "three").is_err());
        let name = folder.path().join("another-name");
        std::fs::hard_link(&file, &name).unwrap();
        assert!(write_private(&name, "three").is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n", "what is not ours alone is left as it is");
    }
}

//! The token and the key where nobody configured them: made once, and kept beside the inbox.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::private::{is_open_to_others, write_private};
use crate::config::{Config, Secret};
use crate::inbox::seal::Sealer;

/// File of the token if none is configured; it lies beside the inbox.
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
        warn_of(&file);
        return Ok(Secret::new("admin.token", text.trim()));
    }
    let token = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    write_private(&file, &token).with_context(|| format!("cannot write {}", file.display()))?;
    tracing::warn!(file = %file.display(), "admin.token is not set, made one and kept it here");
    Ok(Secret::new("admin.token", token))
}

/// File of the key if none is configured; it lies beside the inbox.
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
        Ok(text) => {
            warn_of(&file);
            text
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Sealer::fresh_key()?;
            // A key that is half there would be worse than none.
            let new = file.with_extension("key.new");
            write_private(&new, &key).with_context(|| format!("cannot write {}", new.display()))?;
            std::fs::rename(&new, &file)
                .with_context(|| format!("cannot write {}", file.display()))?;
            tracing::warn!(file = %file.display(), "inbox.key is not set, made one and kept it here");
            key
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    Sealer::new(&Secret::new(file.display().to_string(), text.trim())).context(
        "mend the file, or remove it: then what was sealed with the old key does not open, and its links are lost",
    )
}

/// Says that others may read or change what was made for one alone.
fn warn_of(file: &Path) {
    if is_open_to_others(file) {
        tracing::warn!(file = %file.display(), "others may read or change this secret file: chmod 600");
    }
}

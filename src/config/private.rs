//! Files that only their owner reads.
//!
//! What is promised: a secret is written into a file that is the gateway's own, or not at all. A link, a pipe, a file of
//! another user or one with a second name is left as it is: whoever put it there would get the secret, or choose what is
//! overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Opens a file for writing, and makes it where it is missing. What is in it stays. A `new` one must not be there yet.
pub fn open_private(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .create_new(new)
        .truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let there = file.metadata()?;
        if !there.is_file()
            || there.nlink() > 1
            || there.uid() != rustix::process::geteuid().as_raw()
        {
            return Err(io::Error::other(
                "it is another user's file, or has other names: remove it first",
            ));
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Writes a file that only its owner reads, also where a file is there that others read. It is on the disk when this
/// returns.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = open_private(path, false)?;
    // What is there is cut only once it is known to be ours.
    file.set_len(0)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// True if users other than its owner can read or write a file.
pub fn is_open_to_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|there| there.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn s33_a_secret_is_written_where_nobody_else_reads_it_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/secret");
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        write_private(&file, "one").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&file).unwrap().as_str(), mode()),
            ("one\n", 0o600)
        );
        std::fs::write(&file, "a longer text that others read").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(is_open_to_others(&file));
        write_private(&file, "two").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&file).unwrap().as_str(), mode()),
            ("two\n", 0o600)
        );
        assert!(!is_open_to_others(&file) && open_private(&file, true).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(write_private(&link, "three").is_err());
        let name = folder.path().join("another-name");
        std::fs::hard_link(&file, &name).unwrap();
        assert!(write_private(&name, "three").is_err());
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "two\n",
            "what is not ours alone is left as it is"
        );
    }
}

//! Telling the service manager how the gateway stands, as systemd's `Type=notify` expects it (sd_notify).
//!
//! Promises: without `NOTIFY_SOCKET` nothing happens. A socket that does not take the word costs a line of the log and
//! nothing else.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Address at which the service manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The listeners are open and events are taken.
pub(super) fn ready() {
    tell("READY=1");
}

/// Nothing new is taken any more.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "the service manager was not told: NOTIFY_SOCKET does not take it");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the gateway.
    from.set_nonblocking(true)?;
    from.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// A path, or a name of Linux's abstract sockets, which begins with `@`.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut said = [0; 64];
        let length = socket.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    }

    #[test]
    fn a_word_reaches_a_path_and_an_abstract_name_and_nobody_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(heard(&socket), "READY=1");
        #[cfg(target_os = "linux")]
        {
            let name = format!("@sluicegate-test-{}", std::process::id());
            let socket = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
            send(OsStr::new(&name), "STOPPING=1").unwrap();
            assert_eq!(heard(&socket), "STOPPING=1");
        }
        assert!(send(folder.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}

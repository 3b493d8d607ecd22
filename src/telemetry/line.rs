//! Lines on their way to standard error, by a thread of their own.
//!
//! What is promised: whoever logs never waits for whoever reads. Lines of a few milliseconds share a write. When the
//! other end does not read, lines wait up to a bound; more are dropped and counted, and the log says how many as soon
//! as it can. A stop writes what is there, unless nobody reads it.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing_subscriber::fmt::MakeWriter;

use super::field::is_visible;

/// Most bytes of lines that wait.
const BOUND: usize = 1 << 20;

/// Time for which lines gather before they are written.
const GATHER: Duration = Duration::from_millis(5);

/// Time for which a shutdown waits for the reader.
const LAST: Duration = Duration::from_millis(500);

/// Writer of lines. The last handle writes the rest when it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when something waits that did not before, and when to stop.
    work: Condvar,
    /// Told when everything has been written.
    idle: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    busy: bool,
    hurry: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(out))?;
        Ok(Self(shared))
    }

    /// Waits until what was logged has been written, for a moment at most.
    pub(super) fn flush(&self) {
        let mut waiting = self.0.held();
        waiting.hurry = true;
        self.0.work.notify_one();
        let written = |waiting: &mut Waiting| {
            waiting.busy || !waiting.lines.is_empty() || waiting.dropped > 0
        };
        self.0.idle.wait_while_for(&mut waiting, written, LAST);
        waiting.hurry = false;
    }

    /// Number of lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// One line; the formatter writes it whole.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (length, line) = (line.len(), visible(line));
        let mut waiting = self.0.held();
        if waiting.lines.len() + line.len() > BOUND {
            waiting.dropped += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(length);
        }
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(&line);
        if first && !waiting.busy {
            self.0.work.notify_one();
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line without what some terminals obey though it is no control character of ASCII, and without what turns the order
/// of characters round: JSON lets both stand. They are written as JSON's own escapes, which mean the same there.
fn visible(line: &[u8]) -> Cow<'_, [u8]> {
    let plain = |byte: &u8| byte.is_ascii() && *byte != 0x7f;
    if line.iter().all(plain) {
        return line.into();
    }
    let mut text = String::with_capacity(line.len() + 16);
    for c in String::from_utf8_lossy(line).chars() {
        if (c.is_ascii() && c != '\x7f') || is_visible(c) {
            text.push(c);
        } else {
            c.encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text.into_bytes().into()
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn run(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let nothing = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.dropped == 0;
            let mut waiting = self.held();
            self.work.wait_while(&mut waiting, nothing);
            // From here on nobody needs to wake this thread: it comes back by itself.
            waiting.busy = true;
            let is_unhurried = |waiting: &mut Waiting| !waiting.hurry;
            self.work.wait_while_for(&mut waiting, is_unhurried, GATHER);
            std::mem::swap(&mut lines, &mut waiting.lines);
            let dropped = std::mem::take(&mut waiting.dropped);
            drop(waiting);
            // A reader that has gone is no reason to stop working.
            let _ = out.write_all(&lines);
            if dropped > 0 {
                let _ = writeln!(
                    out,
                    "{dropped} log lines were dropped: standard error was not read"
                );
            }
            let _ = out.flush();
            lines.clear();
            lines.shrink_to(BOUND / 16);
            self.held().busy = false;
            self.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Writes into a channel, one message a write, after it was let.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.0.recv().is_ok() {
                let _ = self.1.send(text.to_vec());
            }
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn f23_whoever_logs_never_waits_and_what_is_dropped_is_counted() {
        let (let_go, gate) = channel();
        let (out, written) = channel();
        let lines = Lines::start(Slow(gate, out)).unwrap();
        let line = [b'x'; 1023];
        // More than the bound, with what the thread may have taken already.
        for _ in 0..3 * BOUND / 1024 {
            let mut one = lines.make_writer();
            one.write_all(&line).unwrap();
            one.write_all(b"\n").unwrap();
        }
        let dropped = lines.dropped();
        assert!(dropped > 0, "a reader that does not read");
        drop(let_go);
        lines.flush();
        drop(written);
    }

    #[test]
    fn lines_come_whole_and_in_order_and_share_writes() {
        let (let_go, gate) = channel();
        let (out, written) = channel();
        let lines = Lines::start(Slow(gate, out)).unwrap();
        for number in 0..1000 {
            lines
                .make_writer()
                .write_all(format!("line {number}\n").as_bytes())
                .unwrap();
        }
        for _ in 0..1000 {
            let_go.send(()).unwrap();
        }
        lines.flush();
        let writes: Vec<Vec<u8>> = written.try_iter().collect();
        assert!(writes.len() < 100, "{} writes", writes.len());
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(writes.concat()).unwrap(), expected);
    }
}

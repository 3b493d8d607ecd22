//! Lines that strangers cause: so many a second, and of the rest how many there were.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Most lines in a second.
const MOST: u32 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// Lines of one kind.
#[derive(Debug)]
pub struct SparseLines {
    /// Subject of the lines.
    what: &'static str,
    second: Mutex<Second>,
}

#[derive(Debug, Default)]
struct Second {
    until: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl SparseLines {
    /// None yet; `what` they are about, in the plural.
    pub fn new(what: &'static str) -> Arc<Self> {
        Arc::new(Self {
            what,
            second: Mutex::default(),
        })
    }

    /// Whether one more is written. One that is not is counted, and the count is written when the second is over.
    pub fn admits(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut second = self.second.lock();
        let until = match second.until {
            Some(until) if until > now => until,
            _ => {
                self.tell(std::mem::take(&mut *second).left_out);
                *second.until.insert(now + SECOND)
            }
        };
        if second.lines < MOST {
            second.lines += 1;
            return true;
        }
        second.left_out += 1;
        if second.left_out == 1
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let lines = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep_until(until).await;
                lines.close(until);
            });
        }
        false
    }

    /// Ends a second that nobody has ended yet.
    fn close(&self, ended: Instant) {
        let mut second = self.second.lock();
        if second.until == Some(ended) {
            self.tell(std::mem::take(&mut *second).left_out);
        }
    }

    fn tell(&self, count: u64) {
        if count > 0 {
            tracing::info!(
                count,
                what = self.what,
                "more of these were not logged in the last second"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s34_so_many_lines_a_second_and_the_rest_is_counted() {
        let lines = SparseLines::new("refused requests");
        let admitted = |count: usize| (0..count).filter(|_| lines.admits()).count();
        assert_eq!(admitted(1000), MOST as usize);
        assert_eq!(lines.second.lock().left_out, 1000 - u64::from(MOST));
        let until = lines.second.lock().until.unwrap();
        lines.close(until + SECOND);
        assert_eq!(lines.second.lock().lines, MOST, "that is another second");
        lines.close(until);
        assert_eq!(lines.second.lock().left_out, 0, "it was told");
        assert_eq!(admitted(10), 10);
    }
}

//! State changes of a delivery when its lease ends. Pure, and the same for both engines: an engine only
//! writes down what is decided here.

use super::{Answer, Next};
use crate::model::{DeliveryState, Timestamp};

/// Change of a delivery's row, and of its lane, when a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition<'a> {
    /// The new state.
    pub(super) state: DeliveryState,
    /// Attempts that are given back: this one, where it was none.
    pub(super) attempts: u8,
    /// Attempts that do not count against the delivery ([`super::Claimed::strikes`]): this one, or none.
    pub(super) strikes: u8,
    /// The new doubt.
    pub(super) doubt: DoubtChange,
    /// The time from which on the lane is ready again; `None`: from the same time as before the claim.
    pub(super) ready_at: Option<Timestamp>,
    /// The upstream's last word, which is kept with the delivery.
    pub(super) answer: Option<&'a Answer>,
}

/// Change of the doubt of a delivery after its lease ([`super::Claimed::doubt`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoubtChange {
    /// It stays as the claim noted it.
    Stays,
    /// It is this from now on.
    Is(Option<Timestamp>),
}

impl<'a> Transition<'a> {
    /// The change that a settlement brings. `ended_at` is the end of its attempt.
    pub(super) fn of(next: &'a Next, ended_at: Timestamp) -> Self {
        let plain = Self {
            state: DeliveryState::Pending,
            attempts: 0,
            strikes: 0,
            doubt: DoubtChange::Is(None),
            ready_at: Some(ended_at),
            answer: None,
        };
        match next {
            Next::Delivered(answer) => Self {
                state: DeliveryState::Delivered,
                answer: Some(answer),
                ..plain
            },
            Next::Dead(answer) => Self {
                state: DeliveryState::Dead,
                answer: answer.as_ref(),
                ..plain
            },
            Next::Unknown => Self {
                state: DeliveryState::Unknown,
                doubt: DoubtChange::Stays,
                ..plain
            },
            Next::Retry { at, doubt, counted } => Self {
                strikes: u8::from(!counted),
                doubt: DoubtChange::Is(*doubt),
                ready_at: Some(*at),
                ..plain
            },
            Next::Released { doubt } => Self {
                ready_at: Some(ended_at),
                ..Self::untaken(*doubt)
            },
        }
    }

    /// The change of a lease that its claimer never had: as if the delivery had not been claimed. `doubt` is that of
    /// before the claim.
    pub(super) const fn untaken(doubt: Option<Timestamp>) -> Self {
        Self {
            state: DeliveryState::Pending,
            attempts: 1,
            strikes: 1,
            doubt: DoubtChange::Is(doubt),
            ready_at: None,
            answer: None,
        }
    }

    /// True if the delivery is done with by this lease: its answer is written, and a caller's own call is erased.
    pub(super) const fn ends(&self) -> bool {
        matches!(self.state, DeliveryState::Delivered | DeliveryState::Dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as both engines have it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Row {
        state: DeliveryState,
        attempts: i32,
        strikes: i32,
        doubt: Option<Timestamp>,
        answer: Option<Answer>,
        ready_at: Timestamp,
        call: bool,
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// As the statements of both engines write a transition.
    fn written(mut row: Row, next: &Transition<'_>) -> Row {
        row.state = next.state;
        row.attempts = (row.attempts - i32::from(next.attempts)).max(0);
        row.strikes = (row.strikes - i32::from(next.strikes)).max(0);
        if let DoubtChange::Is(doubt) = next.doubt {
            row.doubt = doubt;
        }
        row.ready_at = next.ready_at.unwrap_or(row.ready_at);
        if next.ends() {
            row.answer = next.answer.cloned();
            row.call = false;
        }
        row
    }

    /// The former code of the SQLite engine. `None`: a lease that nobody took.
    fn former_sqlite(
        mut row: Row,
        next: Option<&Next>,
        before: Option<Timestamp>,
        ended_at: Timestamp,
    ) -> Row {
        fn finish(row: &mut Row, state: DeliveryState, answer: Option<&Answer>) {
            (row.state, row.doubt, row.answer, row.call) = (state, None, answer.cloned(), false);
        }
        fn put_back(row: &mut Row, attempts: i32, strikes: i32, doubt: Option<Timestamp>) {
            row.state = DeliveryState::Pending;
            row.attempts = (row.attempts - attempts).max(0);
            row.strikes = (row.strikes - strikes).max(0);
            row.doubt = doubt;
        }
        let later = match next {
            Some(Next::Delivered(answer)) => {
                finish(&mut row, DeliveryState::Delivered, Some(answer));
                None
            }
            Some(Next::Dead(answer)) => {
                finish(&mut row, DeliveryState::Dead, answer.as_ref());
                None
            }
            Some(Next::Unknown) => {
                row.state = DeliveryState::Unknown;
                None
            }
            Some(Next::Retry { at, doubt, counted }) => {
                put_back(&mut row, 0, if *counted { 0 } else { 1 }, *doubt);
                Some(*at)
            }
            Some(Next::Released { doubt }) => {
                put_back(&mut row, 1, 1, *doubt);
                None
            }
            None => {
                put_back(&mut row, 1, 1, before);
                return row;
            }
        };
        row.ready_at = later.unwrap_or(ended_at);
        row
    }

    /// The former code of the PostgreSQL engine. `None`: a lease that nobody took.
    fn former_postgres(
        row: Row,
        next: Option<&Next>,
        before: Option<Timestamp>,
        ended_at: Timestamp,
    ) -> Row {
        let (mut tries, mut strikes, mut keep_doubt, mut doubt, mut answer, mut time) =
            (0, 0, false, None, None, None);
        let state = match next {
            None => {
                (tries, strikes, doubt) = (1, 1, before);
                DeliveryState::Pending
            }
            Some(next) => {
                time = Some(ended_at);
                match next {
                    Next::Delivered(last) => {
                        answer = Some(last);
                        DeliveryState::Delivered
                    }
                    Next::Dead(last) => {
                        answer = last.as_ref();
                        DeliveryState::Dead
                    }
                    Next::Unknown => {
                        keep_doubt = true;
                        DeliveryState::Unknown
                    }
                    Next::Retry {
                        at,
                        doubt: since,
                        counted,
                    } => {
                        (time, doubt, strikes) = (Some(*at), *since, i32::from(!counted));
                        DeliveryState::Pending
                    }
                    Next::Released { doubt: before } => {
                        (tries, strikes, doubt) = (1, 1, *before);
                        DeliveryState::Pending
                    }
                }
            }
        };
        let ends = matches!(state, DeliveryState::Delivered | DeliveryState::Dead);
        Row {
            state,
            attempts: (row.attempts - tries).max(0),
            strikes: (row.strikes - strikes).max(0),
            doubt: if keep_doubt { row.doubt } else { doubt },
            answer: if ends { answer.cloned() } else { row.answer },
            ready_at: time.unwrap_or(row.ready_at),
            call: row.call && !ends,
        }
    }

    /// Every kind of end, with and without doubt, over rows that were tried more or less often.
    #[test]
    fn both_former_engines_and_the_transition_write_the_same_rows() {
        let answer = Answer {
            status: "completed".into(),
            result: Some("ok".into()),
            finished_at: None,
            task: None,
        };
        let doubts = [None, Some(at(3))];
        let mut all = vec![
            Some(Next::Delivered(answer.clone())),
            Some(Next::Dead(None)),
            Some(Next::Dead(Some(answer.clone()))),
            Some(Next::Unknown),
            None,
        ];
        for doubt in doubts {
            all.push(Some(Next::Released { doubt }));
            all.extend([true, false].map(|counted| {
                Some(Next::Retry {
                    at: at(99),
                    doubt,
                    counted,
                })
            }));
        }
        let mut seen = 0;
        for next in &all {
            for (attempts, strikes) in [(0, 0), (1, 0), (1, 1), (7, 2)] {
                for (doubt, before) in doubts
                    .into_iter()
                    .flat_map(|one| doubts.map(|two| (one, two)))
                {
                    let row = Row {
                        state: DeliveryState::Leased,
                        attempts,
                        strikes,
                        doubt,
                        answer: None,
                        ready_at: at(1),
                        call: true,
                    };
                    let transition = match next {
                        Some(next) => Transition::of(next, at(50)),
                        None => Transition::untaken(before),
                    };
                    let now = written(row.clone(), &transition);
                    let next = next.as_ref();
                    assert_eq!(
                        now,
                        former_sqlite(row.clone(), next, before, at(50)),
                        "{next:?}"
                    );
                    assert_eq!(now, former_postgres(row, next, before, at(50)), "{next:?}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 11 * 16);
    }
}

//! Tests with more in the file than the contract has: what is bounded stays bounded, and still comes to the same.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::inbox::*;
use crate::model::*;

/// Any route, and one way to deal with turns that wait.
#[derive(Clone)]
struct Any(Overlap);

impl Terms for Any {
    fn begin(&mut self) {}

    fn room(&self) -> usize {
        100
    }

    fn open(&mut self, _: &Route) -> usize {
        100
    }

    fn took(&mut self, _: &Route, _: usize) {}

    fn overlap(&self, _: &str) -> Overlap {
        self.0
    }
}

async fn opened(options: SqliteOptions) -> (tempfile::TempDir, SqliteInbox) {
    let folder = tempfile::tempdir().unwrap();
    let inbox = SqliteInbox::open(&folder.path().join("inbox.db"), options)
        .await
        .unwrap();
    (folder, inbox)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn event(source: &str, thread: &str, now: i64) -> NewEvent {
    let destination: Destination = "agent/a".parse().unwrap();
    let upstream_id = destination
        .former_thread_id("one of them", thread)
        .to_string();
    NewEvent {
        id: EventId::new(),
        source: source.into(),
        dedup: None,
        event_type: Some("usual".into()),
        received_at: at(now),
        strength: Strength::None,
        secret: None,
        proof: None,
        filtered: None,
        unmappable: None,
        thread: Some(thread.into()),
        params: Params::default(),
        request_line: "POST /hooks/s".into(),
        headers: vec![],
        body: format!("number {now}").into(),
        attachments: vec![],
        most_ahead: None,
        backlog: None,
        deliveries: vec![NewDelivery {
            lane: destination.lane(&Account::Operator, &upstream_id),
            destination,
            upstream_id,
            account: Account::Operator,
            class: Class::Normal,
            sealed: None,
        }],
    }
}

/// Keeps many in one turn of the writer.
async fn keep_all(inbox: &SqliteInbox, events: impl IntoIterator<Item = NewEvent>) {
    let records: Vec<_> = events
        .into_iter()
        .map(|event| accept::Record::new(event).unwrap())
        .collect();
    inbox
        .write("keep many", move |tx| {
            records
                .iter()
                .try_for_each(|record| accept::keep(tx, record).map(|_| ()))
        })
        .await
        .unwrap();
}

async fn claim(inbox: &SqliteInbox, overlap: Overlap, now: i64) -> ClaimBatch {
    inbox.claim(Box::new(Any(overlap)), at(now)).await.unwrap()
}

/// Claims until something is claimed; gives that and how many were dropped on the way.
async fn claim_one(inbox: &SqliteInbox, overlap: Overlap, now: i64) -> (Claimed, u64) {
    let mut dropped = 0;
    for _ in 0..100 {
        let mut claims = claim(inbox, overlap, now).await;
        dropped += claims.dropped.iter().map(|(_, count)| count).sum::<u64>();
        if let Some(claimed) = claims.claimed.pop() {
            assert!(claims.claimed.is_empty());
            return (claimed, dropped);
        }
        assert_eq!(
            claims.next_due,
            Some(at(now)),
            "there is more to do at once"
        );
    }
    panic!("nothing comes");
}

async fn settle(inbox: &SqliteInbox, claimed: &Claimed, now: i64, next: Next) -> Settled {
    let (key, lane, fence) = (claimed.key, claimed.lane, claimed.fence);
    let attempt = Attempt {
        number: claimed.attempt,
        started_at: at(now),
        ended_at: at(now),
        result: "tried".into(),
        status: None,
        detail: String::new(),
    };
    inbox
        .settle(Settlement {
            id: Some(claimed.id),
            key,
            lane,
            fence,
            attempt,
            next,
            owes: vec![],
            progress: None,
        })
        .await
        .unwrap()
}

async fn state(inbox: &SqliteInbox, event: EventId) -> DeliveryState {
    inbox.event(event).await.unwrap().unwrap().deliveries[0].state
}

async fn count(inbox: &SqliteInbox, state: DeliveryState) -> u64 {
    inbox
        .counts()
        .await
        .unwrap()
        .iter()
        .filter(|count| count.state == state)
        .map(|count| count.count)
        .sum()
}

fn collect(depth: u32) -> Overlap {
    Overlap {
        mode: OverlapMode::Collect,
        depth: Some(depth),
        age: None,
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A delivery that is settled by hand and sent again may get a new lane; a word from before must not fit it.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_from_before_it_was_settled_by_hand_changes_nothing() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let only = event("s", "t", 1);
    inbox.accept(only.clone()).await.unwrap();
    let (before, _) = claim_one(&inbox, Overlap::QUEUE, 1).await;
    settle(&inbox, &before, 2, Next::Unknown).await;
    assert!(
        inbox
            .resolve(before.id, Resolution::Again, "asked them", at(3))
            .await
            .unwrap()
    );
    let (after, _) = claim_one(&inbox, Overlap::QUEUE, 3).await;
    assert_eq!(
        (after.id, after.lane, after.attempt),
        (before.id, before.lane, 2)
    );
    assert_eq!(
        settle(&inbox, &before, 4, Next::Dead(None)).await,
        Settled::Stale
    );
    assert_eq!(state(&inbox, only.id).await, DeliveryState::Leased);
    assert_eq!(
        settle(&inbox, &after, 4, Next::Dead(None)).await,
        Settled::Done
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_by_hand_does_not_wait_for_what_is_behind_it() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let (first, second) = (event("s", "t", 1), event("other", "t", 2));
    inbox.accept(first.clone()).await.unwrap();
    let (sent, _) = claim_one(&inbox, Overlap::QUEUE, 1).await;
    inbox.accept(second.clone()).await.unwrap();
    settle(&inbox, &sent, 2, Next::Unknown).await;
    let (waits, _) = claim_one(&inbox, Overlap::QUEUE, 2).await;
    assert_eq!(waits.id.event, second.id);
    // While the other one waits for its time it goes at once; put before one in flight it goes first, when the lane
    // may go on.
    let later = Next::Retry {
        at: at(1_000_000),
        doubt: None,
        counted: true,
    };
    settle(&inbox, &waits, 3, later.clone()).await;
    assert!(
        inbox
            .resolve(sent.id, Resolution::Again, "", at(4))
            .await
            .unwrap()
    );
    let (again, _) = claim_one(&inbox, Overlap::QUEUE, 4).await;
    assert_eq!(again.id, sent.id);
    settle(&inbox, &again, 5, Next::Unknown).await;
    let (waits, _) = claim_one(&inbox, Overlap::QUEUE, 2_000_000).await;
    assert!(
        inbox
            .resolve(sent.id, Resolution::Again, "", at(2_000_001))
            .await
            .unwrap()
    );
    let later = Next::Retry {
        at: at(9_000_000),
        doubt: None,
        counted: true,
    };
    settle(&inbox, &waits, 2_000_002, later).await;
    assert!(
        claim(&inbox, Overlap::QUEUE, 2_000_002)
            .await
            .claimed
            .is_empty()
    );
    let (again, _) = claim_one(&inbox, Overlap::QUEUE, 9_000_000).await;
    assert_eq!(again.id, sent.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_wait_the_newest_are_collected_and_the_rest_counted() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    keep_all(&inbox, (0..3_500).map(|now| event("s", "t", now))).await;
    let (leader, dropped) = claim_one(&inbox, collect(5), 10_000).await;
    assert_eq!((leader.received_at, leader.merged.len()), (at(3_495), 4));
    assert_eq!((dropped, leader.dropped), (3_495, 3_495));
    assert_eq!(
        (
            count(&inbox, DeliveryState::Dropped).await,
            count(&inbox, DeliveryState::Merged).await
        ),
        (3_495, 4)
    );
    // Given back unsent and claimed again, it is the same group, whatever came meanwhile.
    settle(&inbox, &leader, 10_001, Next::Released { doubt: None }).await;
    keep_all(&inbox, (0..9).map(|now| event("s", "t", 20_000 + now))).await;
    let (again, dropped) = claim_one(&inbox, collect(5), 30_000).await;
    assert_eq!(
        (again.id, again.merged.len(), again.dropped, dropped),
        (leader.id, 4, 3_495, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_depth_larger_than_a_look_drops_no_more_than_it_says() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    keep_all(&inbox, (0..2_600).map(|now| event("s", "t", now))).await;
    let (leader, dropped) = claim_one(&inbox, collect(2_500), 10_000).await;
    assert_eq!(
        (dropped, leader.dropped, leader.merged.len()),
        (100, 100, 99)
    );
    assert_eq!(count(&inbox, DeliveryState::Pending).await, 2_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_many_knows_how_many_it_stands_for() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    keep_all(&inbox, (0..2_500).map(|now| event("s", "t", now))).await;
    let latest = Overlap {
        mode: OverlapMode::Latest,
        depth: None,
        age: None,
    };
    let (leader, dropped) = claim_one(&inbox, latest, 10_000).await;
    assert_eq!(
        (leader.received_at, leader.dropped, dropped),
        (at(2_499), 2_499, 2_499)
    );
    assert!(leader.merged.is_empty());
    assert_eq!(count(&inbox, DeliveryState::Dropped).await, 2_499);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_too_long_goes_nowhere_however_much_it_is() {
    for mode in [
        OverlapMode::Queue,
        OverlapMode::Collect,
        OverlapMode::Latest,
    ] {
        let (_folder, inbox) = opened(SqliteOptions::default()).await;
        keep_all(
            &inbox,
            (0..2_500)
                .map(|now| event("s", "t", now))
                .chain([event("s", "t", 9_000)]),
        )
        .await;
        let overlap = Overlap {
            mode,
            depth: None,
            age: Some(millis(2_000)),
        };
        let (leader, dropped) = claim_one(&inbox, overlap, 10_000).await;
        assert_eq!(
            (leader.received_at, dropped),
            (at(9_000), 2_500),
            "{mode:?}"
        );
        assert_eq!(leader.dropped, 2_500, "{mode:?}");
        settle(&inbox, &leader, 10_000, Next::Dead(None)).await;
        let left = claim(&inbox, overlap, 10_000).await;
        assert!(left.claimed.is_empty() && left.next_due.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_came_out_of_order_are_listed_too() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    // The one whose request came last was kept first.
    keep_all(&inbox, [event("s", "a", 2_000), event("s", "b", 1_000)]).await;
    for oldest_first in [false, true] {
        let filter = EventFilter {
            since: Some(at(0)),
            until: Some(at(10_000_000)),
            limit: 9,
            oldest_first,
            ..EventFilter::default()
        };
        assert_eq!(inbox.events(&filter).await.unwrap().items.len(), 2);
        assert_eq!(inbox.count(&filter, 9).await.unwrap(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rare_events_among_many_are_found_on_the_first_page() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let mut rare = event("rare", "t", 0);
    (rare.event_type, rare.dedup) = (Some("odd".into()), Some("k".into()));
    let twin = NewEvent {
        id: EventId::new(),
        source: "also rare".into(),
        ..rare.clone()
    };
    keep_all(&inbox, [rare.clone(), twin]).await;
    keep_all(
        &inbox,
        (1..12_000).map(|now| event("s", &now.to_string(), now)),
    )
    .await;
    let all = || EventFilter {
        limit: 9,
        ..EventFilter::default()
    };
    for (filter, wanted) in [
        (
            EventFilter {
                event_type: Some("odd".into()),
                ..all()
            },
            2,
        ),
        (
            EventFilter {
                dedup: Some("k".into()),
                ..all()
            },
            2,
        ),
        (
            EventFilter {
                dedup: Some("k".into()),
                source: Some("rare".into()),
                ..all()
            },
            1,
        ),
        (
            EventFilter {
                dedup: Some("k".into()),
                source: Some("ra're".into()),
                ..all()
            },
            0,
        ),
        (
            EventFilter {
                thread: Some("t".into()),
                oldest_first: true,
                ..all()
            },
            2,
        ),
        (
            EventFilter {
                source: Some("rare".into()),
                ..all()
            },
            1,
        ),
    ] {
        let page = inbox.events(&filter).await.unwrap();
        assert_eq!((page.items.len(), page.next), (wanted, None), "{filter:?}");
        assert_eq!(inbox.count(&filter, 1_000).await.unwrap(), wanted as u64);
    }
    let odd = EventFilter {
        filtered: Some(false),
        ..all()
    };
    assert_eq!(
        inbox.count(&odd, u64::MAX).await.unwrap(),
        12_001,
        "over more than one window"
    );
    assert_eq!(inbox.count(&odd, 11_000).await.unwrap(), 11_000);
    assert_eq!(inbox.count(&odd, 0).await.unwrap(), 0);
}

fn kept(delivered: u64, dead: u64) -> KeepTimes {
    KeepTimes {
        delivered: millis(delivered),
        dead: millis(dead),
        filtered: millis(delivered),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_passes_what_is_owed_and_comes_back_for_it() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let keep = Keep {
        usual: kept(100, 1_000_000),
        sources: HashMap::from([("short".into(), kept(100, 100))]),
    };
    let events =
        ["s", "s", "s", "short"].map(|source| event(source, &EventId::new().to_string(), 1));
    keep_all(&inbox, events.clone()).await;
    let claimed = claim(&inbox, Overlap::QUEUE, 1).await.claimed;
    let of = |place: usize| {
        claimed
            .iter()
            .find(|claimed| claimed.id.event == events[place].id)
            .unwrap()
    };
    settle(&inbox, of(1), 2, Next::Dead(None)).await;
    settle(&inbox, of(3), 2, Next::Dead(None)).await;
    assert_eq!(
        inbox.sweep(&keep, at(500), 9).await.unwrap(),
        1,
        "the dead one that is not kept"
    );
    assert_eq!(inbox.sweep(&keep, at(501), 9).await.unwrap(), 0);
    settle(
        &inbox,
        of(0),
        502,
        Next::Retry {
            at: at(503),
            doubt: None,
            counted: true,
        },
    )
    .await;
    settle(&inbox, of(2), 502, Next::Unknown).await;
    assert_eq!(
        inbox.sweep(&keep, at(503), 9).await.unwrap(),
        0,
        "one is owed, two are kept longer"
    );
    let (last, _) = claim_one(&inbox, Overlap::QUEUE, 504).await;
    let answer = Answer {
        status: "completed".into(),
        result: None,
        finished_at: None,
        task: None,
    };
    settle(&inbox, &last, 504, Next::Delivered(answer)).await;
    assert_eq!(
        inbox.sweep(&keep, at(505), 9).await.unwrap(),
        1,
        "owed when it was passed"
    );
    let keep = Keep {
        usual: kept(100, 100),
        sources: HashMap::new(),
    };
    assert_eq!(
        inbox.sweep(&keep, at(506), 9).await.unwrap(),
        2,
        "other times: everything anew"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_another_is_kept_while_that_may_be_sent() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    keep_all(&inbox, (0..3).map(|now| event("s", "t", now))).await;
    let keep = Keep {
        usual: kept(100, 100),
        sources: HashMap::new(),
    };
    let (leader, _) = claim_one(&inbox, collect(9), 3).await;
    settle(
        &inbox,
        &leader,
        4,
        Next::Retry {
            at: at(1_000),
            doubt: None,
            counted: true,
        },
    )
    .await;
    assert_eq!(inbox.sweep(&keep, at(1_000), 9).await.unwrap(), 0);
    let (again, _) = claim_one(&inbox, collect(9), 1_000).await;
    assert_eq!(again.merged.len(), 2);
    settle(&inbox, &again, 1_001, Next::Dead(None)).await;
    assert_eq!(inbox.sweep(&keep, at(1_002), 9).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_does_not_read_again_what_is_kept_longer() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let keep = Keep {
        usual: kept(100, 1_000_000),
        sources: HashMap::new(),
    };
    let filtered = |now| NewEvent {
        filtered: Some("x".into()),
        deliveries: vec![],
        ..event("s", "t", now)
    };
    keep_all(
        &inbox,
        [event("s", "owed", 0)]
            .into_iter()
            .chain((1..500).map(filtered)),
    )
    .await;
    assert_eq!(
        inbox.sweep(&keep, at(10_000), 1_000).await.unwrap(),
        499,
        "in more than one tx"
    );
    let round = inbox.walks.lock().begin(&keep, at(10_001));
    assert_eq!(
        round.walks[0],
        (millis(100), (499, 500)),
        "behind the last it saw, though one is owed"
    );
    assert_eq!(round.owed, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_ceiling_nothing_is_kept_and_everything_else_goes_on() {
    let most = 3 << 20;
    let options = SqliteOptions {
        max_bytes: Some(most),
        ..SqliteOptions::default()
    };
    let (folder, inbox) = opened(options).await;
    let large = |now| NewEvent {
        body: vec![b'x'; 100_000].into(),
        ..event("s", &format!("{now}"), now)
    };
    let mut count = 0;
    while inbox.accept(large(count)).await.is_ok() {
        count += 1;
        // Due routes are looked at no more often than that.
        tokio::time::sleep(millis(110)).await;
    }
    assert!((5..40).contains(&count), "{count}");
    assert!(matches!(
        inbox.accept(large(count)).await,
        Err(InboxError::NoSpace)
    ));
    assert!(matches!(inbox.ready().await, Err(InboxError::NoSpace)));
    let usage = inbox.usage().await.unwrap();
    assert!(
        usage.bytes >= most && usage.ceiling == Some(most),
        "{usage:?}"
    );
    for claimed in claim(&inbox, Overlap::QUEUE, 1_000).await.claimed {
        assert_eq!(
            settle(&inbox, &claimed, 1_001, Next::Dead(None)).await,
            Settled::Done
        );
    }
    let keep = Keep {
        usual: kept(1, 1),
        sources: HashMap::new(),
    };
    assert_eq!(
        inbox.sweep(&keep, at(2_000), 1_000).await.unwrap(),
        usize::try_from(count).unwrap()
    );
    assert!(inbox.usage().await.unwrap().reusable > 0);
    // The log is part of what it has; it begins anew at the next start.
    inbox.close().await;
    let again = SqliteInbox::open(&folder.path().join("inbox.db"), options)
        .await
        .unwrap();
    assert_eq!(again.accept(large(99)).await.unwrap(), Accepted::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_mostly_empty_gives_its_pages_back() {
    let (_folder, inbox) = opened(SqliteOptions::default()).await;
    let large = |now| NewEvent {
        body: vec![b'x'; 4 << 20].into(),
        filtered: Some("x".into()),
        deliveries: vec![],
        ..event("s", "t", now)
    };
    for now in 0..25 {
        inbox.accept(large(now)).await.unwrap();
    }
    let pages = async || {
        let ask = |tx: &mut Transaction<'_>| {
            tx.conn
                .query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))
        };
        inbox.write("count pages", ask).await.unwrap() * schema::PAGE
    };
    assert!(pages().await > 100 << 20);
    let keep = Keep {
        usual: kept(1, 1),
        sources: HashMap::new(),
    };
    assert_eq!(inbox.sweep(&keep, at(99), 1_000).await.unwrap(), 25);
    let left = pages().await;
    assert!(
        (60 << 20..70 << 20).contains(&left),
        "{left}: so much is kept for what comes next"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_too_little_left_refuses_before_it_is_full() {
    let (_folder, inbox) = opened(SqliteOptions {
        min_free: u64::MAX,
        ..SqliteOptions::default()
    })
    .await;
    assert!(matches!(
        inbox.accept(event("s", "t", 1)).await,
        Err(InboxError::NoSpace)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_with_and_without_an_index() {
    for search in [false, true] {
        let (_folder, inbox) = opened(SqliteOptions {
            search,
            ..SqliteOptions::default()
        })
        .await;
        let say = |text: &str| NewEvent {
            body: text.to_owned().into(),
            filtered: Some("x".into()),
            ..event("s", "t", 1)
        };
        let mut said = [
            say("The order 4711 is LATE"),
            say("an order, paid"),
            say("Straße nach Köln"),
        ];
        said.iter_mut().for_each(|event| event.deliveries.clear());
        let odd = NewEvent {
            body: vec![0xff, 0xfe].into(),
            ..said[0].clone()
        };
        keep_all(
            &inbox,
            said.into_iter().chain([NewEvent {
                id: EventId::new(),
                ..odd
            }]),
        )
        .await;
        let find = async |text: &str| {
            let filter = EventFilter {
                text: Some(text.into()),
                limit: 9,
                ..EventFilter::default()
            };
            inbox.events(&filter).await.unwrap().items.len()
        };
        for _ in 0..100 {
            if find("köln").await == 1 {
                break;
            }
            tokio::time::sleep(millis(50)).await;
        }
        for (text, wanted) in [
            ("order", 2),
            ("late ORDER", 1),
            ("order köln", 0),
            ("straße", 1),
            ("\" OR *", 0),
            ("order, paid", 1),
        ] {
            assert_eq!(find(text).await, wanted, "{text}, {search}");
        }
        let keep = Keep {
            usual: kept(1, 1),
            sources: HashMap::new(),
        };
        assert_eq!(inbox.sweep(&keep, at(99), 9).await.unwrap(), 4);
        assert_eq!(find("order").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_from_before_there_were_routes_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&schema::up_to(2)).unwrap();
    // A lane with one in flight and one behind it, one with one that waits, and one without work.
    let names = ["agent/a", "agent/b"].map(|name| name.parse::<Destination>().unwrap());
    let lanes = names.clone().map(|name| name.lane(&Account::Operator, "u"));
    for (key, (to, state)) in (1..).zip([
        (0, "leased"),
        (0, "pending"),
        (1, "pending"),
        (1, "delivered"),
    ]) {
        old.execute_batch(&format!(
            "INSERT INTO event (seq, id, source, received_at, strength)
                VALUES ({key}, x'{:032x}', 's{to}', {key}, 'none');
             INSERT INTO body VALUES ({key}, 'POST /', '[]', '[]', x'00');
             INSERT INTO delivery (key, event, number, destination, lane, upstream_id, turns, state)
                VALUES ({key}, {key}, 0, '{}', {}, 'u', 1, '{state}');",
            key,
            names[to],
            to + 1,
        ))
        .unwrap();
    }
    for (id, lane, delivery) in [
        (1, lanes[0], "1"),
        (2, lanes[1], "NULL"),
        (3, uuid::Uuid::nil(), "NULL"),
    ] {
        let hex = lane.simple();
        old.execute_batch(&format!(
            "INSERT INTO lane VALUES ({id}, x'{hex}', 0, 7, {delivery});"
        ))
        .unwrap();
    }
    drop(old);
    let inbox = SqliteInbox::open(&path, SqliteOptions::default())
        .await
        .unwrap();
    let claims = claim(&inbox, Overlap::QUEUE, 9).await;
    let found: Vec<_> = claims
        .claimed
        .iter()
        .map(|claimed| (claimed.key, claimed.lane))
        .collect();
    assert_eq!(found, [(1, lanes[0]), (3, lanes[1])]);
    for claimed in &claims.claimed {
        assert_eq!(
            settle(&inbox, claimed, 10, Next::Dead(None)).await,
            Settled::Done
        );
    }
    let (last, _) = claim_one(&inbox, Overlap::QUEUE, 11).await;
    assert_eq!(last.key, 2);
    settle(&inbox, &last, 12, Next::Unknown).await;
    assert!(
        inbox
            .resolve(last.id, Resolution::Again, "", at(13))
            .await
            .unwrap()
    );
    assert_eq!(claim_one(&inbox, Overlap::QUEUE, 13).await.0.key, 2);
    assert!(claim(&inbox, Overlap::QUEUE, 14).await.next_due.is_none());
}

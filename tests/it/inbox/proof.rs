//! What proved one event proves no other: whichever id it comes under, however many at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sluicegate::inbox::sweep::sweep;
use sluicegate::model::{Accepted, EventId, NewEvent, ProofMark, UsedProof};

use super::{World, at, done, event, everything, keep};

/// An event under an id of its own, proved by these marks.
fn proved(marks: &[u8], until: Option<i64>, dedup: Option<&str>, now: i64) -> NewEvent {
    NewEvent {
        proof: Some(proof(marks, until)),
        dedup: dedup.map(str::to_owned),
        ..event(&EventId::new().to_string(), now)
    }
}

fn proof(marks: &[u8], until: Option<i64>) -> UsedProof {
    UsedProof {
        marks: marks.iter().map(|mark| ProofMark([*mark; 32])).collect(),
        until: until.map(at),
    }
}

async fn tell(world: &World, event: NewEvent) -> Accepted {
    world.inbox().accept(event).await.unwrap()
}

async fn replays(world: &World, id: EventId) -> (u64, Option<i64>) {
    let detail = world.inbox().event(id).await.unwrap().unwrap();
    (detail.replays, detail.replayed_at.map(|at| at.millis()))
}

/// S7, S8
pub async fn s8_a_proof_is_good_for_one_event(world: World) {
    let first = proved(&[1], None, Some("a"), 1);
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    assert_eq!(
        tell(&world, proved(&[1], None, Some("a"), 2)).await,
        Accepted::Duplicate(first.id),
        "as it was"
    );
    assert_eq!(
        replays(&world, first.id).await,
        (0, None),
        "a redelivery is no replay"
    );
    assert_eq!(
        tell(&world, proved(&[1], None, Some("b"), 3)).await,
        Accepted::Replayed(first.id),
        "a fresh id"
    );
    assert_eq!(
        tell(&world, proved(&[1], None, None, 9_000_000)).await,
        Accepted::Replayed(first.id),
        "no id, late"
    );
    assert_eq!(replays(&world, first.id).await, (2, Some(9_000_000)));
    assert_eq!(
        tell(&world, first.clone()).await,
        Accepted::Duplicate(first.id),
        "its first answer was lost"
    );
    assert_eq!(
        tell(&world, proved(&[2], None, None, 4)).await,
        Accepted::New,
        "another proof"
    );
    assert_eq!(
        world
            .inbox()
            .events(&everything())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

/// S8
pub async fn s8_a_proof_with_a_window_is_good_again_after_it(world: World) {
    let first = proved(&[1], Some(600), None, 1);
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    assert_eq!(
        tell(&world, proved(&[1], Some(1199), None, 599)).await,
        Accepted::Replayed(first.id)
    );
    let second = proved(&[1], Some(1200), None, 600);
    assert_eq!(
        tell(&world, second.clone()).await,
        Accepted::New,
        "its time is over"
    );
    assert_eq!(
        tell(&world, proved(&[1], Some(1700), None, 1100)).await,
        Accepted::Replayed(second.id)
    );
}

/// S7: a sender that tries again signs again; that signature is used up as well.
pub async fn s7_the_proof_of_a_redelivery_is_used_up_too(world: World) {
    let first = proved(&[1], None, Some("a"), 1);
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    assert_eq!(
        tell(&world, proved(&[2], None, Some("a"), 2)).await,
        Accepted::Duplicate(first.id)
    );
    assert_eq!(
        tell(&world, proved(&[2], None, Some("b"), 3)).await,
        Accepted::Replayed(first.id)
    );
    let twins = [
        proved(&[3], None, Some("a"), 4),
        proved(&[3], None, Some("c"), 4),
    ];
    let told = join_all(twins.into_iter().map(|twin| tell(&world, twin))).await;
    assert!(told.contains(&Accepted::Duplicate(first.id)), "{told:?}");
}

/// S7
pub async fn s7_copies_at_once_under_fresh_ids_are_one_event(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let copies = (0..64).map(|n| {
        let event = proved(&[7], None, Some(&format!("fresh {n}")), n);
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { (event.id, inbox.accept(event).await.unwrap()) })
    });
    let (mut first, mut told) = (Vec::new(), Vec::new());
    for copy in copies.collect::<Vec<_>>() {
        match copy.await.unwrap() {
            (id, Accepted::New) => first.push(id),
            (_, Accepted::Replayed(id)) => told.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((first.len(), told.len()), (1, 63));
    assert!(told.iter().all(|id| *id == first[0]));
    assert_eq!(replays(&world, first[0]).await.0, 63);
}

/// S8: a list of items that are proved one by one.
pub async fn s8_a_list_is_new_as_long_as_one_item_is(world: World) {
    let first = proved(&[1, 2], None, None, 1);
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    for marks in [&[1][..], &[2], &[2, 1], &[1, 1, 1]] {
        assert_eq!(
            tell(&world, proved(marks, None, None, 2)).await,
            Accepted::Replayed(first.id),
            "{marks:?}"
        );
    }
    let second = proved(&[2, 3], None, None, 3);
    assert_eq!(
        tell(&world, second.clone()).await,
        Accepted::New,
        "an item that nobody saw"
    );
    assert_eq!(
        tell(&world, proved(&[3], None, None, 4)).await,
        Accepted::Replayed(second.id)
    );
}

/// S8: what is turned away uses nothing up, and a filtered event uses its proof up as any other.
pub async fn s8_what_is_not_kept_uses_nothing_up(world: World) {
    let first = NewEvent {
        proof: Some(proof(&[1], None)),
        ..event("lane", 1)
    };
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    let hasty = |mark| NewEvent {
        most_ahead: Some(0),
        proof: Some(proof(&[mark], None)),
        ..event("lane", 2)
    };
    assert_eq!(tell(&world, hasty(2)).await, Accepted::Busy);
    assert_eq!(
        tell(&world, hasty(1)).await,
        Accepted::Replayed(first.id),
        "the one that keeps the lane busy"
    );
    let claimed = world.claim_one(2).await;
    world.settle(&claimed, 3, done()).await;
    assert_eq!(
        tell(&world, hasty(2)).await,
        Accepted::New,
        "the lane is free again"
    );
    let filtered = NewEvent {
        filtered: Some("events".into()),
        deliveries: vec![],
        ..proved(&[9], None, None, 3)
    };
    assert_eq!(tell(&world, filtered.clone()).await, Accepted::New);
    assert_eq!(
        tell(&world, proved(&[9], None, None, 4)).await,
        Accepted::Replayed(filtered.id)
    );
}

/// S8
pub async fn s8_a_proof_goes_with_its_event(world: World) {
    let (first, passed) = (proved(&[1], None, Some("a"), 1), proof(&[5], Some(500)));
    assert_eq!(tell(&world, first.clone()).await, Accepted::New);
    assert_eq!(
        tell(&world, proved(&[2], None, Some("a"), 2)).await,
        Accepted::Duplicate(first.id)
    );
    assert!(
        world
            .inbox()
            .use_proof(passed.clone(), at(1))
            .await
            .unwrap()
    );
    let claimed = world.claim_one(2).await;
    world.settle(&claimed, 3, done()).await;
    assert_eq!(sweep(world.inbox(), &keep(600), at(1000)).await.unwrap(), 1);
    for mark in [1, 2] {
        assert_eq!(
            tell(&world, proved(&[mark], None, None, 1001)).await,
            Accepted::New,
            "{mark}"
        );
    }
    assert!(
        world.inbox().use_proof(passed, at(1)).await.unwrap(),
        "swept, though its time had been to come"
    );
}

/// S8: a request that is passed on is not kept, and yet runs once.
pub async fn s8_a_proof_is_good_for_one_call_that_is_passed_on(world: World) {
    let inbox = world.inbox();
    assert!(
        inbox
            .use_proof(proof(&[1], Some(600)), at(1))
            .await
            .unwrap()
    );
    assert!(
        !inbox
            .use_proof(proof(&[1], Some(700)), at(2))
            .await
            .unwrap()
    );
    let kept = proved(&[1], None, None, 3);
    assert_eq!(
        tell(&world, kept.clone()).await,
        Accepted::Replayed(kept.id),
        "no event can be named"
    );
    assert!(
        inbox
            .use_proof(proof(&[1], Some(1200)), at(600))
            .await
            .unwrap(),
        "its time is over"
    );
    inbox.free_proof(vec![ProofMark([1; 32])]).await.unwrap();
    assert!(
        inbox
            .use_proof(proof(&[1], Some(1200)), at(601))
            .await
            .unwrap(),
        "it reached nobody"
    );
    let event = proved(&[2], None, None, 1);
    assert_eq!(tell(&world, event).await, Accepted::New);
    assert!(
        !inbox
            .use_proof(
                proof(&[2], Some(Duration::from_secs(9).as_millis() as i64)),
                at(2)
            )
            .await
            .unwrap()
    );
    inbox.free_proof(vec![ProofMark([2; 32])]).await.unwrap();
    assert!(
        !inbox
            .use_proof(proof(&[2], Some(1200)), at(3))
            .await
            .unwrap(),
        "what an event used stays used"
    );
}

//! Jobs: each event is owed exactly once, whoever steps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sluicegate::inbox::{EventFilter, Inbox, Job, JobState, JobStep, NewJob, Next};
use sluicegate::model::{DeliveryState, EventId};

use super::{World, at, event};

/// So many events that are dead.
async fn dead(world: &World, count: i64) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(world.accept(&event(&n.to_string(), n)).await.event);
    }
    for claimed in world.claim(1000).await {
        world.settle(&claimed, 1000, Next::Dead(None)).await;
    }
    ids
}

fn new_job(total: u64) -> NewJob {
    NewJob {
        filter: "state=dead".into(),
        total,
        pace: 60,
    }
}

/// Plans a job's next step.
async fn plan(inbox: &dyn Inbox, job: &Job) -> JobStep {
    let filter = EventFilter {
        state: Some(DeliveryState::Dead),
        cursor: job.cursor,
        oldest_first: true,
        limit: 3,
        ..EventFilter::default()
    };
    let page = inbox.events(&filter).await.unwrap();
    let owed = page.items.iter().map(|item| {
        let deliveries = event(item.thread.as_deref().unwrap(), 1).deliveries;
        (
            item.id,
            u32::try_from(item.states.len()).unwrap(),
            deliveries,
        )
    });
    JobStep {
        anew: HashMap::new(),
        id: job.id,
        from: job.cursor,
        to: page.next.or(job.cursor),
        ended: page.next.is_none(),
        owed: owed.collect(),
        skipped: 0,
    }
}

pub async fn two_who_step_a_job_owe_each_event_once(mut world: World) {
    let ids = dead(&world, 40).await;
    let begun = world.inbox().begin_job(new_job(40), at(1)).await.unwrap();
    let wanted = Job {
        id: begun.id,
        filter: "state=dead".into(),
        state: JobState::Running,
        total: 40,
        done: 0,
        skipped: 0,
        pace: 60,
        cursor: None,
        started_at: at(1),
        changed_at: at(1),
    };
    assert_eq!(begun, wanted);
    let inbox = world.inbox.clone().unwrap();
    let steppers: Vec<_> = (0..4)
        .map(|_| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                let (mut made, mut refused) = (0, 0);
                loop {
                    let job = inbox.jobs().await.unwrap().remove(0);
                    if job.state != JobState::Running {
                        return (made, refused);
                    }
                    let step = plan(&*inbox, &job).await;
                    match inbox.step_job(step, at(2)).await.unwrap() {
                        Some(_) => made += 1,
                        None => refused += 1,
                    }
                }
            })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for stepper in steppers {
        let (some, others) = stepper.await.unwrap();
        (made, refused) = (made + some, refused + others);
    }
    assert_eq!(made, 14, "{refused} came too late");
    drop(inbox);
    world.crash().await;
    let job = world.inbox().jobs().await.unwrap().remove(0);
    assert_eq!(
        (job.state, job.done, job.skipped, job.changed_at),
        (JobState::Done, 40, 0, at(2))
    );
    for id in ids {
        let event = world.inbox().event(id).await.unwrap().unwrap();
        assert_eq!(
            event.summary.states,
            [DeliveryState::Dead, DeliveryState::Pending]
        );
    }
    let counts = [
        (("triage".to_owned(), "dead"), 40),
        (("triage".to_owned(), "pending"), 40),
    ];
    assert_eq!(world.counts().await, BTreeMap::from(counts));
}

pub async fn a_job_that_is_not_running_or_has_moved_takes_no_step(world: World) {
    let ids = dead(&world, 7).await;
    let inbox = world.inbox();
    let job = inbox.begin_job(new_job(7), at(1)).await.unwrap();
    let pending = async || {
        world
            .counts()
            .await
            .get(&("triage".to_owned(), "pending"))
            .copied()
            .unwrap_or(0)
    };
    let first = plan(inbox, &job).await;

    let wrong = JobStep {
        from: Some(7777),
        ..first.clone()
    };
    assert_eq!(
        inbox.step_job(wrong, at(2)).await.unwrap(),
        None,
        "it is not there"
    );
    let nobody = JobStep {
        id: job.id + 1000,
        ..first.clone()
    };
    assert_eq!(inbox.step_job(nobody, at(2)).await.unwrap(), None);
    let paused = inbox
        .steer_job(job.id, Some(JobState::Paused), Some(7), at(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (paused.state, paused.pace, paused.changed_at),
        (JobState::Paused, 7, at(3))
    );
    assert_eq!(
        inbox.step_job(first.clone(), at(4)).await.unwrap(),
        None,
        "it is paused"
    );
    let running = inbox
        .steer_job(job.id, Some(JobState::Running), None, at(5))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((running.state, running.pace), (JobState::Running, 7));

    // Somebody else replayed one of them since the step was planned.
    world.replay(ids[2], 1, event("2", 1).deliveries, 5).await;
    assert_eq!(inbox.step_job(first.clone(), at(6)).await.unwrap(), None);
    assert_eq!(pending().await, 1, "and none of the others is owed");
    // That one is no longer dead, so the next step takes another. One that is gone is no obstacle.
    let mut first = plan(inbox, &job).await;
    assert!(
        first
            .owed
            .iter()
            .all(|(event, next, _)| *event != ids[2] && *next == 1)
    );
    first
        .owed
        .push((EventId::new(), 1, event("x", 1).deliveries));
    first.skipped = 2;
    let job = inbox.step_job(first.clone(), at(7)).await.unwrap().unwrap();
    assert_eq!((job.done, job.skipped, job.cursor), (3, 3, first.to));
    assert_eq!(pending().await, 4);
    assert_eq!(
        inbox.step_job(first, at(8)).await.unwrap(),
        None,
        "it has moved"
    );

    let off = inbox
        .steer_job(job.id, Some(JobState::Cancelled), None, at(9))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(off.state, JobState::Cancelled);
    let next = plan(inbox, &job).await;
    assert_eq!(
        inbox.step_job(next, at(10)).await.unwrap(),
        None,
        "it was called off"
    );
    let still = inbox
        .steer_job(job.id, Some(JobState::Running), Some(1), at(11))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(still, off, "what has ended stays as it is");
    assert_eq!(
        inbox
            .steer_job(job.id + 1000, None, None, at(11))
            .await
            .unwrap(),
        None
    );
    assert_eq!(pending().await, 4);
    let last = inbox.begin_job(new_job(1), at(12)).await.unwrap();
    let jobs = inbox.jobs().await.unwrap();
    assert_eq!(
        jobs.iter().map(|job| job.id).collect::<Vec<_>>(),
        [last.id, job.id],
        "newest first"
    );
}

//! Files that came along.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::attachment::{DRAWERS, Files, Folder};
use sluicegate::inbox::KeptAttachment;
use sluicegate::inbox::sweep::{sweep, sweep_drawer, sweep_files};
use sluicegate::model::{Attachment, AttachmentId, NewEvent, OverlapMode, Timestamp};

use super::{World, at, done, event, keep, retry, room_for};

fn file(name: &str, expires: i64) -> Attachment {
    let id = AttachmentId::new();
    Attachment {
        id,
        name: name.into(),
        content_type: "text/plain".into(),
        size: 1 << 40,
        sha256: [9; 32],
        key: id.key(name),
        origin: None,
        expires_at: at(expires),
    }
}

pub async fn files_stay_with_their_event_and_then_for_their_time(world: World) {
    let inbox = world.inbox();
    let attachments = vec![file("b\"é.txt", 50), file("a", 50)];
    let event = NewEvent {
        attachments: attachments.clone(),
        ..event("t", 1)
    };
    world.accept(&event).await;
    assert_eq!(
        inbox.event(event.id).await.unwrap().unwrap().attachments,
        attachments,
        "in their order"
    );
    let claimed = world.claim_one(1).await;
    assert_eq!(claimed.attachments, attachments);
    let one = inbox.attachment(attachments[0].id).await.unwrap();
    let kept = KeptAttachment {
        attachment: attachments[0].clone(),
        source: "triage".into(),
        event: Some(event.id),
    };
    assert_eq!(one, Some(kept));
    assert_eq!(inbox.attachment(AttachmentId::new()).await.unwrap(), None);
    assert_eq!(
        inbox.attachments_gone(at(1000), 9).await.unwrap(),
        [],
        "an event refers to them"
    );
    inbox.extend_attachments(event.id, at(100)).await.unwrap();
    inbox.extend_attachments(event.id, at(60)).await.unwrap();
    world.settle(&claimed, 2, done()).await;
    assert_eq!(sweep(inbox, &keep(0), at(3)).await.unwrap(), 1);
    assert_eq!(
        inbox.attachments_gone(at(100), 9).await.unwrap(),
        [],
        "somebody has a link"
    );
    let gone = inbox.attachments_gone(at(101), 9).await.unwrap();
    let ids = |files: &[Attachment]| files.iter().map(|file| file.id).collect::<Vec<_>>();
    assert_eq!(ids(&gone), ids(&attachments));
    assert_eq!(
        inbox.attachment(gone[0].id).await.unwrap().unwrap().event,
        None
    );
    assert_eq!(
        inbox
            .forget_attachments(vec![gone[0].id, AttachmentId::new()])
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        inbox.attachments_known(ids(&gone)).await.unwrap(),
        [gone[1].id]
    );
}

pub async fn files_of_what_goes_together_go_together(mut world: World) {
    let events: Vec<NewEvent> = (1..=3)
        .map(|n| NewEvent {
            attachments: vec![file(&format!("{n}.txt"), 50)],
            ..event("a", n)
        })
        .collect();
    for event in &events {
        world.accept(event).await;
    }
    let collect = room_for(100).overlap(OverlapMode::Collect, None, None);
    let turn = world.claim_one_on(&collect, 5).await;
    world.settle(&turn, 6, retry(7)).await;
    world.crash().await;
    let turn = world.claim_one_on(&collect, 8).await;
    let merged = turn.merged.iter().map(|merged| &merged.attachments);
    let found: Vec<_> = std::iter::once(&turn.attachments).chain(merged).collect();
    assert_eq!(
        found,
        events
            .iter()
            .map(|event| &event.attachments)
            .collect::<Vec<_>>()
    );
}

pub async fn files_that_are_fetched_for_an_event_stand_behind_those_it_has(mut world: World) {
    let first = NewEvent {
        attachments: vec![file("came", 50)],
        ..event("t", 1)
    };
    world.accept(&first).await;
    let fetched: Vec<Attachment> = (1..=3)
        .map(|n| Attachment {
            origin: Some(format!("channel/{n}\u{0}")),
            ..file(&n.to_string(), 50)
        })
        .collect();
    assert!(
        world
            .inbox()
            .add_attachments(first.id, fetched[..2].to_vec())
            .await
            .unwrap()
    );
    assert!(
        world
            .inbox()
            .add_attachments(first.id, fetched[2..].to_vec())
            .await
            .unwrap()
    );
    assert!(
        !world
            .inbox()
            .add_attachments(event("t", 2).id, fetched.clone())
            .await
            .unwrap(),
        "there is no such event"
    );
    world.crash().await;
    let all = [first.attachments, fetched].concat();
    assert_eq!(world.claim_one(5).await.attachments, all);
    assert_eq!(
        world
            .inbox()
            .event(first.id)
            .await
            .unwrap()
            .unwrap()
            .attachments,
        all
    );
}

pub async fn files_without_an_event_stay_for_their_time(world: World) {
    let inbox = world.inbox();
    let all: Vec<Attachment> = (0..5).map(|n| file(&n.to_string(), 10 + n)).collect();
    inbox.keep_attachments("dropin", all.clone()).await.unwrap();
    assert_eq!(inbox.attachments_gone(at(12), 9).await.unwrap(), all[..2]);
    assert_eq!(inbox.attachments_gone(at(99), 1).await.unwrap(), all[..1]);
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = inbox.attachments(cursor, 2).await.unwrap();
        seen.extend(
            page.items
                .into_iter()
                .map(|kept| (kept.attachment, kept.source, kept.event)),
        );
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let wanted: Vec<_> = all
        .into_iter()
        .rev()
        .map(|file| (file, "dropin".to_owned(), None))
        .collect();
    assert_eq!(seen, wanted, "newest first, each once");
}

pub async fn files_that_nothing_refers_to_are_swept(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Folder::open(folder.path()).unwrap());
    let files = Files::new(store, None, false, Duration::from_secs(9));
    let mut made = Vec::new();
    for expires in [10, 1000, 1000] {
        let mut incoming = files.begin("a.txt", None).await.unwrap();
        incoming.take("x".into()).await.unwrap();
        made.push(
            incoming
                .end(at(expires))
                .await
                .unwrap()
                .place()
                .await
                .unwrap(),
        );
    }
    world
        .inbox()
        .keep_attachments("s", made[..2].to_vec())
        .await
        .unwrap();
    assert_eq!(
        sweep_files(world.inbox(), &files, at(500)).await.unwrap(),
        1,
        "its time is over"
    );
    let mut orphans = 0;
    for drawer in 0..DRAWERS {
        assert_eq!(
            sweep_drawer(world.inbox(), &files, drawer, at(1))
                .await
                .unwrap(),
            0,
            "too young"
        );
        let later = Timestamp::from_seconds(i64::MAX / 2000);
        orphans += sweep_drawer(world.inbox(), &files, drawer, later)
            .await
            .unwrap();
    }
    assert_eq!(orphans, 1, "what the inbox knows nothing of");
    assert!(
        files.open(&made[0].key, 0..1).await.is_err()
            && files.open(&made[2].key, 0..1).await.is_err()
    );
    assert!(files.open(&made[1].key, 0..1).await.is_ok());
}

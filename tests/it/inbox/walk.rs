//! Random verbs, crashes among them, against lanes as plain lists.

use std::collections::{BTreeMap, HashMap};

use sluicegate::inbox::{Claimed, Next, Replayed, Resolution, Settled};
use sluicegate::model::{DeliveryId, DeliveryState, NewEvent, OverlapMode, Timestamp};
use uuid::Uuid;

use super::{World, at, done, event_of, room_for};

/// What a lane is, in a few lines: a list of which one may be in flight, which need not be the first by then.
#[derive(Default)]
struct Lane {
    waiting: Vec<Owed>,
    flying: Option<Owed>,
    ready_at: i64,
}

#[derive(Clone)]
struct Owed {
    key: u32,
    id: DeliveryId,
    lane: Uuid,
    attempts: u32,
    doubt: Option<i64>,
    group: Vec<DeliveryId>,
}

#[derive(Default)]
struct Model {
    lanes: HashMap<Uuid, Lane>,
    states: HashMap<DeliveryId, DeliveryState>,
    unknown: HashMap<DeliveryId, Owed>,
    keys: u32,
}

impl Model {
    fn owe(&mut self, id: DeliveryId, lane: Uuid, now: i64) {
        self.keys += 1;
        self.wait(
            Owed {
                key: self.keys,
                id,
                lane,
                attempts: 0,
                doubt: None,
                group: vec![],
            },
            now,
        );
    }

    /// Puts one in its place.
    fn wait(&mut self, owed: Owed, now: i64) {
        self.states.insert(owed.id, DeliveryState::Pending);
        let lane = self.lanes.entry(owed.lane).or_insert_with(|| Lane {
            ready_at: now,
            ..Lane::default()
        });
        lane.waiting.push(owed);
        lane.waiting.sort_by_key(|owed| owed.key);
    }

    /// What goes along with the first of a lane from now on.
    fn gather(&mut self, lane: Uuid) {
        let lane = self.lanes.get_mut(&lane).unwrap();
        if lane.waiting[0].attempts > 0 || !lane.waiting[0].group.is_empty() {
            return;
        }
        let along = lane.waiting[1..]
            .iter()
            .take_while(|owed| owed.attempts == 0)
            .count();
        lane.waiting[0].group = lane.waiting.drain(1..=along).map(|owed| owed.id).collect();
        for id in &lane.waiting[0].group {
            self.states.insert(*id, DeliveryState::Merged);
        }
    }

    fn end(&mut self, claimed: &Claimed, next: &Next, now: i64) {
        let lane = self.lanes.get_mut(&claimed.lane).unwrap();
        let mut owed = lane.flying.take().unwrap();
        lane.ready_at = now;
        let state = match next {
            Next::Delivered(_) => DeliveryState::Delivered,
            Next::Dead(_) => DeliveryState::Dead,
            Next::Unknown => {
                self.unknown.insert(owed.id, owed.clone());
                DeliveryState::Unknown
            }
            Next::Retry { at, doubt, .. } => {
                lane.ready_at = at.millis();
                owed.doubt = doubt.map(Timestamp::millis);
                DeliveryState::Pending
            }
            Next::Released { doubt } => {
                owed.attempts -= 1;
                owed.doubt = doubt.map(Timestamp::millis);
                DeliveryState::Pending
            }
        };
        if state == DeliveryState::Pending {
            self.wait(owed, now);
        }
        self.states.insert(claimed.id, state);
        self.lanes
            .retain(|_, lane| lane.flying.is_some() || !lane.waiting.is_empty());
    }

    fn cancel(&mut self, id: DeliveryId, now: i64) {
        self.states.insert(id, DeliveryState::Cancelled);
        for lane in self.lanes.values_mut() {
            if lane.flying.is_none() && lane.waiting.first().is_some_and(|head| head.id == id) {
                lane.ready_at = lane.ready_at.min(now);
            }
            lane.waiting.retain(|owed| owed.id != id);
        }
        self.lanes
            .retain(|_, lane| lane.flying.is_some() || !lane.waiting.is_empty());
    }

    fn resolve(&mut self, id: DeliveryId, how: Resolution, now: i64) {
        let owed = self.unknown.remove(&id).unwrap();
        match how {
            Resolution::Delivered => drop(self.states.insert(id, DeliveryState::Delivered)),
            Resolution::Dead => drop(self.states.insert(id, DeliveryState::Dead)),
            Resolution::Again => {
                let lane = owed.lane;
                self.wait(
                    Owed {
                        doubt: None,
                        ..owed
                    },
                    now,
                );
                let lane = self.lanes.get_mut(&lane).unwrap();
                if lane.flying.is_none() && lane.waiting[0].id == id {
                    lane.ready_at = lane.ready_at.min(now);
                }
            }
        }
    }

    fn crash(&mut self) {
        for lane in self.lanes.values_mut() {
            if let Some(owed) = lane.flying.take() {
                self.states.insert(owed.id, DeliveryState::Pending);
                lane.waiting.push(owed);
                lane.waiting.sort_by_key(|owed| owed.key);
            }
        }
    }

    fn due(&self, now: i64) -> usize {
        self.lanes
            .values()
            .filter(|lane| lane.flying.is_none() && lane.ready_at <= now)
            .count()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.lanes
            .values()
            .filter(|lane| lane.flying.is_none())
            .map(|lane| at(lane.ready_at))
            .min()
    }
}

pub async fn random_walks_agree_with_a_plain_model(mut world: World) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut model = Model::default();
    let mut flying: Vec<Claimed> = Vec::new();
    let mut over: Vec<Claimed> = Vec::new();
    let mut events: Vec<(NewEvent, u32)> = Vec::new();
    for now in 1..1500_i64 {
        match random.u32(..100) {
            0..30 => {
                let thread = random.u32(..6);
                let source = if thread < 4 { "triage" } else { "chat" };
                let event = event_of(source, &thread.to_string(), now);
                let id = world.accept(&event).await;
                model.owe(id, event.deliveries[0].lane, now);
                events.push((event, 1));
            }
            30..55 => {
                // Now together, now one by one: what was put together stays together.
                let (limit, together) = (random.usize(..4), random.bool());
                let mode = if together {
                    OverlapMode::Collect
                } else {
                    OverlapMode::Queue
                };
                let claimed = world
                    .claims(&room_for(limit).overlap(mode, None, None), now)
                    .await
                    .claimed;
                let most = model.due(now).min(limit);
                assert!(
                    claimed.len() <= most && (most == 0 || !claimed.is_empty()),
                    "at {now}"
                );
                for claimed in claimed {
                    if together {
                        model.gather(claimed.lane);
                    }
                    let lane = model.lanes.get_mut(&claimed.lane).unwrap();
                    assert!(lane.flying.is_none() && lane.ready_at <= now);
                    let mut head = lane.waiting.remove(0);
                    head.attempts += 1;
                    assert_eq!(
                        (claimed.id, claimed.attempt),
                        (head.id, head.attempts),
                        "at {now}"
                    );
                    assert_eq!(claimed.doubt.map(Timestamp::millis), head.doubt, "at {now}");
                    assert_eq!(
                        claimed.merged.iter().map(|one| one.id).collect::<Vec<_>>(),
                        head.group,
                        "at {now}"
                    );
                    head.doubt = head.doubt.or(Some(now));
                    lane.flying = Some(head);
                    model.states.insert(claimed.id, DeliveryState::Leased);
                    flying.push(claimed);
                }
            }
            55..78 if !flying.is_empty() => {
                let claimed = flying.swap_remove(random.usize(..flying.len()));
                let later = at(now + random.i64(0..30));
                let next = match random.u32(..6) {
                    0 | 1 => done(),
                    2 => Next::Dead(None),
                    3 => Next::Retry {
                        at: later,
                        doubt: Some(at(now)),
                        counted: true,
                    },
                    4 => Next::Unknown,
                    _ => Next::Released {
                        doubt: claimed.doubt,
                    },
                };
                model.end(&claimed, &next, now);
                assert_eq!(world.settle(&claimed, now, next).await, Settled::Done);
                over.push(claimed);
            }
            78..83 if !over.is_empty() => {
                let late = &over[random.usize(..over.len())];
                assert_eq!(
                    world.settle(late, now, done()).await,
                    Settled::Stale,
                    "at {now}"
                );
            }
            83..88 if !events.is_empty() => {
                let (event, numbers) = &events[random.usize(..events.len())];
                let id = DeliveryId {
                    event: event.id,
                    number: random.u32(..*numbers),
                };
                let pending = model.states[&id] == DeliveryState::Pending;
                assert_eq!(
                    world.inbox().cancel(id, at(now)).await.unwrap(),
                    pending,
                    "at {now}"
                );
                if pending {
                    model.cancel(id, now);
                }
            }
            88..93 if !events.is_empty() => {
                let (event, numbers) = &events[random.usize(..events.len())];
                let id = DeliveryId {
                    event: event.id,
                    number: random.u32(..*numbers),
                };
                let id = model
                    .unknown
                    .keys()
                    .min()
                    .copied()
                    .filter(|_| random.bool())
                    .unwrap_or(id);
                let how = random
                    .choice([
                        Resolution::Delivered,
                        Resolution::Dead,
                        Resolution::Again,
                        Resolution::Again,
                    ])
                    .unwrap();
                let unknown = model.states[&id] == DeliveryState::Unknown;
                assert_eq!(
                    world.inbox().resolve(id, how, "", at(now)).await.unwrap(),
                    unknown,
                    "at {now}"
                );
                if unknown {
                    model.resolve(id, how, now);
                }
            }
            93..99 if !events.is_empty() => {
                let place = random.usize(..events.len());
                let (event, numbers) = &mut events[place];
                let first = *numbers - u32::from(random.u8(..5) == 0);
                let to = event.deliveries.clone();
                let replayed = world
                    .inbox()
                    .replay(event.id, first, to, at(now))
                    .await
                    .unwrap();
                if first == *numbers {
                    let id = DeliveryId {
                        event: event.id,
                        number: first,
                    };
                    assert_eq!(replayed, Replayed::Made(vec![id]), "at {now}");
                    model.owe(id, event.deliveries[0].lane, now);
                    *numbers += 1;
                } else {
                    assert_eq!(replayed, Replayed::Moved, "at {now}");
                }
            }
            99 => {
                world.crash().await;
                over.append(&mut flying);
                model.crash();
            }
            _ => {}
        }
        assert_eq!(world.next_due().await, model.next_due(), "at {now}");
        if now % 50 == 0 {
            let mut sums: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
            for (event, numbers) in &events {
                for number in 0..*numbers {
                    let state = model.states[&DeliveryId {
                        event: event.id,
                        number,
                    }];
                    *sums
                        .entry((event.source.clone(), state.as_str()))
                        .or_default() += 1;
                }
            }
            assert_eq!(world.counts().await, sums, "at {now}");
        }
    }
    for (id, state) in &model.states {
        assert_eq!(world.state(*id).await, *state);
    }
}

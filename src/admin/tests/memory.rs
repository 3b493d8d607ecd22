//! An inbox in memory: events that it accepts, delivers and lists.

use super::*;

/// Events in a list; a cursor is the place where the next page begins.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) events: Mutex<Vec<EventDetail>>,
    pub(super) holds: Mutex<Vec<(Pause, Timestamp)>>,
    pub(super) jobs: Mutex<Vec<Job>>,
    pub(super) ill: AtomicBool,
}

impl Memory {
    async fn keep(&self, event: NewEvent) -> Result<Accepted, InboxError> {
        let mut kept = super::event(0, &event.source, event.filtered.is_some());
        kept.summary = EventSummary {
            id: event.id,
            source: event.source,
            event_type: event.event_type,
            dedup: event.dedup,
            thread: event.thread,
            received_at: event.received_at,
            filtered: event.filtered,
            states: Vec::new(),
        };
        kept.strength = event.strength.as_str().into();
        (kept.params, kept.headers, kept.body) = (event.params, event.headers, event.body);
        kept.deliveries.clear();
        self.events.lock().unwrap().insert(0, kept);
        self.replay(event.id, 0, event.deliveries, event.received_at)
            .await?;
        Ok(Accepted::New)
    }
}

#[async_trait]
impl Accept for Memory {
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        let mut told = Vec::new();
        for event in events {
            told.push(self.keep(event).await?);
        }
        Ok(told)
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        let is = |event: &&EventDetail| {
            event.summary.source == source && event.summary.dedup.as_deref() == Some(dedup)
        };
        Ok(self
            .events
            .lock()
            .unwrap()
            .iter()
            .find(is)
            .map(|event| event.summary.id))
    }

    async fn use_proof(&self, _: UsedProof, _: Timestamp) -> Result<bool, InboxError> {
        Ok(true)
    }

    async fn free_proof(&self, _: Vec<ProofMark>) -> Result<(), InboxError> {
        Ok(())
    }
}

#[async_trait]
impl Deliver for Memory {
    async fn claim(&self, _: Box<dyn Terms>, _: Timestamp) -> Result<ClaimBatch, InboxError> {
        Err(InboxError::Closed)
    }

    async fn settle(&self, _: Settlement) -> Result<Settled, InboxError> {
        Err(InboxError::Closed)
    }

    async fn work_due(&self) {}

    async fn earlier_turn(&self, _: &Claimed) -> Result<Option<Turn>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let events = self.events.lock().unwrap();
        let mut deliveries = events.iter().flat_map(|event| &event.deliveries);
        Ok(deliveries.find(|delivery| delivery.id == id).cloned())
    }
}

#[async_trait]
impl Browse for Memory {
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let start = usize::try_from(filter.cursor.unwrap_or(0)).unwrap_or(0);
        let mut events = self.events.lock().unwrap().clone();
        if filter.oldest_first {
            events.reverse();
        }
        let all = events.iter().map(|event| &event.summary).filter(|event| {
            filter
                .event_type
                .as_ref()
                .is_none_or(|wanted| Some(wanted) == event.event_type.as_ref())
                && filter
                    .dedup
                    .as_ref()
                    .is_none_or(|wanted| Some(wanted) == event.dedup.as_ref())
                && filter
                    .source
                    .as_ref()
                    .is_none_or(|source| *source == event.source)
                && filter
                    .state
                    .is_none_or(|state| event.states.last() == Some(&state))
                && filter
                    .filtered
                    .is_none_or(|filtered| filtered == event.filtered.is_some())
                && filter.since.is_none_or(|since| event.received_at >= since)
                && filter.until.is_none_or(|until| event.received_at < until)
                && filter.text.is_none()
                && filter.thread.is_none()
        });
        let mut items: Vec<_> = all.skip(start).take(filter.limit + 1).cloned().collect();
        let next =
            (items.len() > filter.limit).then(|| i64::try_from(start + filter.limit).unwrap());
        items.truncate(filter.limit);
        Ok(Page { items, next })
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let all = EventFilter {
            limit: 1000,
            ..filter.clone()
        };
        Ok(most.min(self.events(&all).await?.items.len() as u64))
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        Ok(self
            .events
            .lock()
            .unwrap()
            .iter()
            .find(|event| event.summary.id == id)
            .cloned())
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        let mut ids: Vec<_> = self
            .events
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.summary.id)
            .collect();
        ids.retain(|id| (from..=to).contains(id));
        ids.sort_unstable();
        ids.truncate(most);
        Ok(ids)
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        let all = self.events.lock().unwrap();
        let wanted = all
            .iter()
            .filter(|event| events.contains(&event.summary.id));
        let pending = wanted.flat_map(|event| {
            event
                .deliveries
                .iter()
                .map(move |delivery| (event, delivery))
        });
        let pending = pending.filter(|(_, delivery)| delivery.state == DeliveryState::Pending);
        let waiting = pending.map(|(event, delivery)| WaitingDelivery {
            id: delivery.id,
            route: waiting::own(&event.summary.source, delivery.destination.clone()),
            behind: None,
            due: delivery.due,
            last: delivery.tries.last().cloned(),
        });
        Ok(waiting.collect())
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        let mut fares = std::collections::BTreeMap::<String, SourceFare>::new();
        for event in self.events.lock().unwrap().iter() {
            let fare = fares.entry(event.summary.source.clone()).or_default();
            fare.source.clone_from(&event.summary.source);
            fare.last_event = fare.last_event.max(Some(event.summary.received_at));
            match event.summary.states.last() {
                Some(DeliveryState::Dead) => fare.dead += 1,
                Some(DeliveryState::Unknown) => fare.unknown += 1,
                _ => {}
            }
        }
        Ok(fares.into_values().collect())
    }

    async fn destinations(&self) -> Result<Vec<crate::model::Destination>, InboxError> {
        let events = self.events.lock().unwrap();
        Ok(events
            .iter()
            .flat_map(|event| &event.deliveries)
            .map(|delivery| delivery.destination.clone())
            .collect())
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(InboxError::Engine {
                doing: "count",
                cause: "/var/lib/inbox.db is torn".into(),
            });
        }
        let count = |source: &str, count| Count {
            source: source.into(),
            state: DeliveryState::Pending,
            count,
        };
        Ok(vec![count("triage", 7), count("old", 1)])
    }
}

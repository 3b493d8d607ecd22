//! The inbox in memory, as an operator changes it, and as the listener measures it.

use super::*;

#[async_trait]
impl Operate for Memory {
    async fn replay(
        &self,
        id: EventId,
        _: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        let mut events = self.events.lock().unwrap();
        let Some(event) = events.iter_mut().find(|event| event.summary.id == id) else {
            return Ok(Replayed::NoEvent);
        };
        let mut made = Vec::new();
        for owed in to {
            let number = u32::try_from(event.deliveries.len()).unwrap();
            made.push(DeliveryId { event: id, number });
            event.deliveries.push(DeliveryDetail {
                id: DeliveryId { event: id, number },
                destination: owed.destination,
                account: owed.account,
                class: owed.class,
                state: DeliveryState::Pending,
                upstream_id: owed.upstream_id,
                attempts: 0,
                due: Some(now),
                doubt: None,
                answer: None,
                sealed: SealedCall::None,
                answers: None,
                tries: Vec::new(),
            });
            event.summary.states.push(DeliveryState::Pending);
        }
        Ok(Replayed::Made(made))
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        _: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.replay(id, first, to, now).await
    }

    async fn cancel(&self, id: DeliveryId, _: Timestamp) -> Result<bool, InboxError> {
        let mut events = self.events.lock().unwrap();
        let mut deliveries = events.iter_mut().flat_map(|event| &mut event.deliveries);
        let found = deliveries
            .find(|delivery| delivery.id == id && delivery.state == DeliveryState::Pending);
        Ok(found
            .map(|delivery| delivery.state = DeliveryState::Cancelled)
            .is_some())
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let mut events = self.events.lock().unwrap();
        let mut deliveries = events.iter_mut().flat_map(|event| &mut event.deliveries);
        let found = deliveries
            .find(|delivery| delivery.id == id && delivery.state == DeliveryState::Unknown);
        let Some(delivery) = found else {
            return Ok(false);
        };
        delivery.state = match how {
            Resolution::Delivered => DeliveryState::Delivered,
            Resolution::Dead => DeliveryState::Dead,
            Resolution::Again => DeliveryState::Pending,
        };
        delivery.tries.push(Attempt {
            number: delivery.attempts,
            started_at: now,
            ended_at: now,
            result: "settled".into(),
            status: None,
            detail: note.into(),
        });
        Ok(true)
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let mut holds = self.holds.lock().unwrap();
        let was = holds.iter().any(|(held, _)| held == what);
        holds.retain(|(held, _)| on || held != what);
        if on && !was {
            holds.push((what.clone(), now));
        }
        Ok(on != was)
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        Ok(self.holds.lock().unwrap().clone())
    }
}

#[async_trait]
impl Jobs for Memory {
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        let mut jobs = self.jobs.lock().unwrap();
        let job = Job {
            id: i64::try_from(jobs.len()).unwrap() + 1,
            filter: job.filter,
            state: JobState::Running,
            total: job.total,
            done: 0,
            skipped: 0,
            pace: job.pace,
            cursor: None,
            started_at: now,
            changed_at: now,
        };
        jobs.insert(0, job.clone());
        Ok(job)
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        Ok(self.jobs.lock().unwrap().clone())
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        let mut jobs = self.jobs.lock().unwrap();
        let Some(job) = jobs.iter_mut().find(|job| job.id == id) else {
            return Ok(None);
        };
        if !job.state.is_final() {
            (job.state, job.pace, job.changed_at) =
                (state.unwrap_or(job.state), pace.unwrap_or(job.pace), now);
        }
        Ok(Some(job.clone()))
    }

    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        let as_planned = |job: &&mut Job| {
            job.id == step.id && job.state == JobState::Running && job.cursor == step.from
        };
        if self
            .jobs
            .lock()
            .unwrap()
            .iter_mut()
            .find(as_planned)
            .is_none()
        {
            return Ok(None);
        }
        let count = step.owed.len() as u64;
        for (id, first, to) in step.owed.clone() {
            self.replay(id, first, to, now).await?;
        }
        let mut jobs = self.jobs.lock().unwrap();
        let job = jobs.iter_mut().find(as_planned).unwrap();
        (job.done, job.skipped, job.cursor) =
            (job.done + count, job.skipped + step.skipped, step.to);
        job.changed_at = now;
        if step.ended {
            job.state = JobState::Done;
        }
        Ok(Some(job.clone()))
    }
}

#[async_trait]
impl CountRuns for Memory {
    async fn spend(&self, _: i64, _: Vec<Spend>) -> Result<Option<String>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn give_back(&self, _: i64, _: Vec<String>) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn spent(&self, _: i64) -> Result<Vec<(String, u64)>, InboxError> {
        Ok(vec![("all".to_owned(), 7), ("agent/a".to_owned(), 3)])
    }
}

#[async_trait]
impl KeepFiles for Memory {
    async fn keep_attachments(&self, _: &str, _: Vec<Attachment>) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn add_attachments(&self, _: EventId, _: Vec<Attachment>) -> Result<bool, InboxError> {
        Err(InboxError::Closed)
    }

    async fn extend_attachments(&self, _: EventId, _: Timestamp) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachment(&self, _: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        Ok(None)
    }

    async fn attachments(
        &self,
        _: Option<i64>,
        _: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        Ok(Page {
            items: Vec::new(),
            next: None,
        })
    }

    async fn attachments_gone(
        &self,
        _: Timestamp,
        _: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachments_known(
        &self,
        _: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn forget_attachments(&self, _: Vec<AttachmentId>) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }
}

#[async_trait]
impl Upkeep for Memory {
    async fn sweep(&self, _: &Keep, _: Timestamp, _: usize) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(InboxError::Engine {
                doing: "measure",
                cause: "/var/lib/inbox.db is torn".into(),
            });
        }
        Ok(Usage {
            bytes: 4096,
            reusable: 1024,
            ceiling: Some(1 << 30),
        })
    }

    async fn bytes_of(&self, _: &str) -> Result<u64, InboxError> {
        Ok(0)
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        Ok(UpstreamIds::default())
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            Err(InboxError::NoSpace)
        } else {
            Ok(())
        }
    }

    async fn failed(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

#[async_trait]
impl Replicas for Memory {
    fn replica_status(&self) -> ReplicaStatus {
        ReplicaStatus {
            good: true,
            generation: 0,
            replicas: 1,
        }
    }

    fn replicas_with(&self, _: crate::model::Role) -> u32 {
        1
    }

    async fn replica_status_changed(&self) {
        std::future::pending().await
    }
}

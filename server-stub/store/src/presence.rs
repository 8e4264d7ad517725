//! Which agents are connected.
//!
//! Agents come, go and give signs of life by the hundred at the same moment,
//! and each wants that written down. Whoever gets to write first writes for
//! all who wait by then, in one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_rest::Time;
use uuid::Uuid;

use crate::Result;
use crate::engine::Store;

/// The most notes of one transaction.
const BATCH: usize = 256;

/// Notes that wait to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    waiting: Arc<Mutex<Waiting>>,
    /// Held while writing; the number of notes that were.
    written: Arc<tokio::sync::Mutex<u64>>,
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<Note>,
    /// The number of notes so far.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    agent: Uuid,
    what: What,
    at: Time,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Connected,
    Seen,
    Disconnected,
}

impl What {
    const fn statement(self) -> &'static str {
        match self {
            Self::Connected => {
                "UPDATE agents SET first_connected_at = coalesce(first_connected_at, $2),
                     last_connected_at = $2, updated_at = $2 WHERE id = $1"
            }
            Self::Seen => "UPDATE agents SET last_connected_at = $2, updated_at = $2 WHERE id = $1",
            Self::Disconnected => {
                "UPDATE agents SET disconnected_at = $2, updated_at = $2 WHERE id = $1"
            }
        }
    }
}

impl Presence {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Notes a new control connection.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_connected(&self, id: Uuid, now: Time) -> Result<()> {
        self.note(id, What::Connected, now).await
    }

    /// Notes that the control connection answers.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_seen(&self, id: Uuid, now: Time) -> Result<()> {
        self.note(id, What::Seen, now).await
    }

    /// Notes the end of a control connection.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_disconnected(&self, id: Uuid, now: Time) -> Result<()> {
        self.note(id, What::Disconnected, now).await
    }

    /// Writes one note, in order with the others. A caller that gives up leaves
    /// its note to the next.
    async fn note(&self, agent: Uuid, what: What, at: Time) -> Result<()> {
        let number = {
            let mut waiting = self.presence.waiting();
            waiting.notes.push(Note { agent, what, at });
            waiting.count += 1;
            waiting.count
        };
        let mut written = self.presence.written.lock().await;
        while *written < number {
            let batch: Vec<Note> = {
                let waiting = self.presence.waiting();
                waiting.notes.iter().take(BATCH).copied().collect()
            };
            let outcome = self.write_notes(&batch).await;
            // Also those that cannot be written: they would stop all others.
            self.presence.waiting().notes.drain(..batch.len());
            *written += batch.len() as u64;
            outcome?;
        }
        Ok(())
    }

    async fn write_notes(&self, notes: &[Note]) -> Result<()> {
        let mut tx = self.begin().await?;
        for note in notes {
            sqlx::query(note.what.statement())
                .bind(note.agent.to_string())
                .bind(note.at.as_micros())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

//! Small facts about the deployment.

use crate::engine::{Cols as _, Store};
use crate::{Error, Result};

impl Store {
    /// The value of a setting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn setting(&self, name: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.read)
            .await?;
        row.map(|row| row.text("value")).transpose()
    }

    /// Sets a setting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// The value of a setting, made once by `make`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn setting_or(&self, name: &str, make: impl FnOnce() -> String) -> Result<String> {
        if let Some(value) = self.setting(name).await? {
            return Ok(value);
        }
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(make())
            .execute(self.writer())
            .await?;
        self.setting(name).await?.ok_or(Error::NotFound)
    }
}

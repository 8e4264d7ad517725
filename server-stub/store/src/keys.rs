//! API keys.

use adit_rest::{LoginType, Time};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, json};
use crate::model::ApiKey;
use crate::{Error, Result};

fn key(row: &Row) -> Result<ApiKey> {
    Ok(ApiKey {
        id: row.text("id")?,
        user_id: row.uuid("user_id")?,
        hashed_secret: row.text("hashed_secret")?,
        login_type: row.word("login_type", LoginType::parse)?,
        scope: row.text("scope")?,
        scopes: row.json("scopes")?,
        allow_list: row.json("allow_list")?,
        token_name: row.text("token_name")?,
        lifetime_seconds: row.int("lifetime_seconds")?,
        last_used: row.time("last_used")?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

impl Store {
    /// Stores a new key; [`Error::Taken`] if the user has a token of that name.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn insert_key(&self, new: &ApiKey) -> Result<()> {
        sqlx::query(
            "INSERT INTO api_keys (id, user_id, hashed_secret, login_type, scope, scopes,
                 allow_list, token_name, lifetime_seconds, last_used, expires_at, created_at,
                 updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(&new.id)
        .bind(new.user_id.to_string())
        .bind(&new.hashed_secret)
        .bind(new.login_type.as_str())
        .bind(&new.scope)
        .bind(json(&new.scopes))
        .bind(json(&new.allow_list))
        .bind(&new.token_name)
        .bind(new.lifetime_seconds)
        .bind(new.last_used.as_micros())
        .bind(new.expires_at.as_micros())
        .bind(new.created_at.as_micros())
        .bind(new.updated_at.as_micros())
        .execute(self.writer())
        .await
        .map_err(|error| Error::unique(error, "token name"))?;
        Ok(())
    }

    /// A key by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key(&self, id: &str) -> Result<Option<ApiKey>> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.read)
            .await?;
        row.map(|row| key(&row)).transpose()
    }

    /// A named token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_by_name(&self, user: Uuid, name: &str) -> Result<Option<ApiKey>> {
        let row = sqlx::query(
            "SELECT * FROM api_keys WHERE user_id = $1 AND token_name = $2
                 AND login_type = 'token'",
        )
        .bind(user.to_string())
        .bind(name)
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| key(&row)).transpose()
    }

    /// Named tokens, oldest first; of all users when `user` is `None`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self, user: Option<Uuid>) -> Result<Vec<ApiKey>> {
        let rows = sqlx::query(
            "SELECT * FROM api_keys WHERE login_type = 'token' AND ($1 = '' OR user_id = $1)
             ORDER BY created_at, id",
        )
        .bind(user.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(key).collect()
    }

    /// Removes a key; says whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_key(&self, id: &str) -> Result<bool> {
        let done = sqlx::query("DELETE FROM api_keys WHERE id = $1")
            .bind(id)
            .execute(self.writer())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes a use, and moves the end of validity.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_key(&self, id: &str, last_used: Time, expires_at: Time) -> Result<()> {
        sqlx::query(
            "UPDATE api_keys SET last_used = $2, expires_at = $3, updated_at = $4 WHERE id = $1",
        )
        .bind(id)
        .bind(last_used.as_micros())
        .bind(expires_at.as_micros())
        .bind(Time::now().as_micros())
        .execute(self.writer())
        .await?;
        Ok(())
    }
}

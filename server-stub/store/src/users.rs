//! Users, organizations and memberships.

use adit_rest::{LoginType, Time, UserStatus};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, Tx, json};
use crate::model::{GitSshKey, Member, Organization, User};
use crate::{Error, Result, optional};

/// Largest page of a list.
pub const MAX_PAGE: i64 = 1_000_000;

/// What a new account needs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewUser {
    /// Generated when nil.
    pub id: Uuid,
    pub username: String,
    pub email: String,
    pub name: String,
    /// PHC string or empty.
    pub password_hash: String,
    pub status: UserStatus,
    pub login_type: LoginType,
    pub roles: Vec<String>,
    pub is_system: bool,
}

/// Which users to list.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct UserFilter {
    /// Part of the user name or e-mail address, lower case.
    pub search: String,
    pub status: Option<UserStatus>,
    /// Only this one.
    pub only: Option<Uuid>,
    pub after: Option<Uuid>,
    pub offset: i64,
    /// 0 is all.
    pub limit: i64,
}

/// A statement on the people of a [`UserFilter`].
macro_rules! of_people {
    ($what:literal, $rest:literal) => {
        concat!(
            $what,
            " FROM users WHERE deleted = 0 AND is_system = 0
               AND ($1 = '' OR instr(lower(username), $1) > 0 OR instr(lower(email), $1) > 0)
               AND ($2 = '' OR status = $2)
               AND ($3 = '' OR id = $3)",
            $rest
        )
    };
}

fn user(row: &Row) -> Result<User> {
    Ok(User {
        id: row.uuid("id")?,
        username: row.text("username")?,
        email: row.text("email")?,
        name: row.text("name")?,
        avatar_url: row.text("avatar_url")?,
        password_hash: row.text("password_hash")?,
        status: row.word("status", UserStatus::parse)?,
        login_type: row.word("login_type", LoginType::parse)?,
        roles: row.json("roles")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        last_seen_at: row.time("last_seen_at")?,
        deleted: row.flag("deleted")?,
        is_system: row.flag("is_system")?,
    })
}

fn organization(row: &Row) -> Result<Organization> {
    Ok(Organization {
        id: row.uuid("id")?,
        name: row.text("name")?,
        display_name: row.text("display_name")?,
        icon: row.text("icon")?,
        description: row.text("description")?,
        is_default: row.flag("is_default")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn member(row: &Row) -> Result<Member> {
    Ok(Member {
        organization_id: row.uuid("organization_id")?,
        user_id: row.uuid("user_id")?,
        roles: row.json("roles")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(crate) async fn insert_user(tx: &mut Tx, new: &NewUser, now: Time) -> Result<User> {
    let id = if new.id.is_nil() {
        Uuid::new_v4()
    } else {
        new.id
    };
    sqlx::query(
        "INSERT INTO users (id, username, email, name, avatar_url, password_hash, status,
             login_type, roles, created_at, updated_at, last_seen_at, deleted, is_system)
         VALUES ($1, $2, $3, $4, '', $5, $6, $7, $8, $9, $9, $10, 0, $11)",
    )
    .bind(id.to_string())
    .bind(&new.username)
    .bind(&new.email)
    .bind(&new.name)
    .bind(&new.password_hash)
    .bind(new.status.as_str())
    .bind(new.login_type.as_str())
    .bind(json(&new.roles))
    .bind(now.as_micros())
    .bind(Time::default().as_micros())
    .bind(i64::from(new.is_system))
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::unique(error, "user"))?;
    let row = sqlx::query("SELECT * FROM users WHERE id = $1")
        .bind(id.to_string())
        .fetch_one(&mut **tx)
        .await?;
    user(&row)
}

pub(crate) async fn insert_member(tx: &mut Tx, org: Uuid, id: Uuid, now: Time) -> Result<()> {
    sqlx::query(
        "INSERT INTO organization_members
             (organization_id, user_id, roles, created_at, updated_at)
         VALUES ($1, $2, '[]', $3, $3) ON CONFLICT DO NOTHING",
    )
    .bind(org.to_string())
    .bind(id.to_string())
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// How many people have an account.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_users(&self) -> Result<i64> {
        let row =
            sqlx::query("SELECT count(*) AS n FROM users WHERE deleted = 0 AND is_system = 0")
                .fetch_one(&self.read)
                .await?;
        row.int("n")
    }

    /// Makes the first account; [`Error::Refused`] if there is one.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn create_first_user(&self, new: &NewUser) -> Result<(User, Organization)> {
        let now = Time::now();
        let organization = self.default_organization().await?;
        let mut tx = self.begin().await?;
        let row =
            sqlx::query("SELECT count(*) AS n FROM users WHERE deleted = 0 AND is_system = 0")
                .fetch_one(&mut *tx)
                .await?;
        if row.int("n")? > 0 {
            return Err(Error::Refused("the first user exists"));
        }
        let user = insert_user(&mut tx, new, now).await?;
        insert_member(&mut tx, organization.id, user.id, now).await?;
        tx.commit().await?;
        Ok((user, organization))
    }

    /// Makes an account that is a member of the given organizations;
    /// [`Error::Taken`] if the name or address is used.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn create_user(&self, new: &NewUser, organizations: &[Uuid]) -> Result<User> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        let user = insert_user(&mut tx, new, now).await?;
        for organization in organizations {
            insert_member(&mut tx, *organization, user.id, now).await?;
        }
        tx.commit().await?;
        Ok(user)
    }

    /// One account; deleted ones too.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn user(&self, id: Uuid) -> Result<User> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        user(&row.ok_or(Error::NotFound)?)
    }

    /// One live account by its name, without regard to case.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn user_by_name(&self, name: &str) -> Result<User> {
        let row =
            sqlx::query("SELECT * FROM users WHERE lower(username) = lower($1) AND deleted = 0")
                .bind(name)
                .fetch_optional(&self.read)
                .await?;
        user(&row.ok_or(Error::NotFound)?)
    }

    /// One live account by its e-mail address, without regard to case.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let row = sqlx::query("SELECT * FROM users WHERE lower(email) = lower($1) AND deleted = 0")
            .bind(email)
            .fetch_optional(&self.read)
            .await?;
        row.map(|row| user(&row)).transpose()
    }

    /// People in the order of their names, and how many match in total.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&self, filter: &UserFilter) -> Result<(Vec<User>, i64)> {
        let after = match filter.after {
            Some(id) => optional(self.user(id).await)?,
            None => None,
        };
        let limit = match filter.limit {
            0 => MAX_PAGE,
            limit => limit,
        };
        let rows = sqlx::query(of_people!(
            "SELECT *",
            " AND ($4 = '' OR lower(username) > $4) ORDER BY lower(username) LIMIT $5 OFFSET $6"
        ))
        .bind(&filter.search)
        .bind(filter.status.map_or("", UserStatus::as_str))
        .bind(filter.only.map(|id| id.to_string()).unwrap_or_default())
        .bind(
            after
                .map(|user| user.username.to_lowercase())
                .unwrap_or_default(),
        )
        .bind(limit)
        .bind(filter.offset)
        .fetch_all(&self.read)
        .await?;
        let page = rows.iter().map(user).collect::<Result<Vec<_>>>()?;
        let row = sqlx::query(of_people!("SELECT count(*) AS n", ""))
            .bind(&filter.search)
            .bind(filter.status.map_or("", UserStatus::as_str))
            .bind(filter.only.map(|id| id.to_string()).unwrap_or_default())
            .fetch_one(&self.read)
            .await?;
        Ok((page, row.int("n")?))
    }

    /// Changes name and full name; [`Error::Taken`] if the name is used.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn set_user_profile(&self, id: Uuid, username: &str, name: &str) -> Result<User> {
        sqlx::query("UPDATE users SET username = $2, name = $3, updated_at = $4 WHERE id = $1")
            .bind(id.to_string())
            .bind(username)
            .bind(name)
            .bind(Time::now().as_micros())
            .execute(self.writer())
            .await
            .map_err(|error| Error::unique(error, "user"))?;
        self.user(id).await
    }

    /// Replaces a user's roles.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_user_roles(&self, id: Uuid, roles: &[String]) -> Result<User> {
        sqlx::query("UPDATE users SET roles = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(json(&roles))
            .execute(self.writer())
            .await?;
        self.user(id).await
    }

    /// Changes a user's state.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_user_status(&self, id: Uuid, status: UserStatus) -> Result<User> {
        sqlx::query("UPDATE users SET status = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(status.as_str())
            .bind(Time::now().as_micros())
            .execute(self.writer())
            .await?;
        self.user(id).await
    }

    /// Replaces a user's password and ends all sessions.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_user_password(&self, id: Uuid, hash: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(hash)
            .bind(Time::now().as_micros())
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM api_keys WHERE user_id = $1")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Marks a user as deleted and removes the keys.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_user(&self, id: Uuid) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE users SET deleted = 1, updated_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(Time::now().as_micros())
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM api_keys WHERE user_id = $1")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM organization_members WHERE user_id = $1")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Notes that a user was seen; a dormant user becomes active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_user(&self, id: Uuid, now: Time) -> Result<()> {
        sqlx::query(
            "UPDATE users SET last_seen_at = $2, updated_at = $2,
                 status = CASE WHEN status = 'dormant' THEN 'active' ELSE status END
             WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(now.as_micros())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// The organization every deployment has, made on first use.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn default_organization(&self) -> Result<Organization> {
        if let Some(found) = self.default_organization_row().await? {
            return Ok(found);
        }
        sqlx::query(
            "INSERT INTO organizations (id, name, display_name, icon, description, is_default,
                 created_at, updated_at)
             VALUES ($1, 'coder', 'Coder', '', 'Builtin default organization.', 1, $2, $2)
             ON CONFLICT DO NOTHING",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(Time::now().as_micros())
        .execute(self.writer())
        .await?;
        self.default_organization_row()
            .await?
            .ok_or(Error::NotFound)
    }

    async fn default_organization_row(&self) -> Result<Option<Organization>> {
        let row = sqlx::query("SELECT * FROM organizations WHERE is_default = 1")
            .fetch_optional(&self.read)
            .await?;
        row.map(|row| organization(&row)).transpose()
    }

    /// All organizations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organizations(&self) -> Result<Vec<Organization>> {
        let rows = sqlx::query("SELECT * FROM organizations ORDER BY name")
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(organization).collect()
    }

    /// Organizations a user is a member of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organizations_of(&self, user: Uuid) -> Result<Vec<Organization>> {
        let rows = sqlx::query(
            "SELECT o.* FROM organizations o
             JOIN organization_members m ON m.organization_id = o.id
             WHERE m.user_id = $1 ORDER BY o.name",
        )
        .bind(user.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(organization).collect()
    }

    /// One organization by id.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn organization(&self, id: Uuid) -> Result<Organization> {
        let row = sqlx::query("SELECT * FROM organizations WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        organization(&row.ok_or(Error::NotFound)?)
    }

    /// One organization by name.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn organization_by_name(&self, name: &str) -> Result<Organization> {
        let row = sqlx::query("SELECT * FROM organizations WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.read)
            .await?;
        organization(&row.ok_or(Error::NotFound)?)
    }

    /// Makes a user a member; does nothing if it is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_member(&self, organization: Uuid, user: Uuid) -> Result<()> {
        let mut tx = self.begin().await?;
        insert_member(&mut tx, organization, user, Time::now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A membership.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn member(&self, organization: Uuid, user: Uuid) -> Result<Member> {
        let row = sqlx::query(
            "SELECT * FROM organization_members WHERE organization_id = $1 AND user_id = $2",
        )
        .bind(organization.to_string())
        .bind(user.to_string())
        .fetch_optional(&self.read)
        .await?;
        member(&row.ok_or(Error::NotFound)?)
    }

    /// All memberships of people in an organization, with the accounts, in the
    /// order of names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn members(&self, organization: Uuid) -> Result<Vec<(Member, User)>> {
        let rows = sqlx::query(
            "SELECT m.* FROM organization_members m JOIN users u ON u.id = m.user_id
             WHERE m.organization_id = $1 AND u.deleted = 0 AND u.is_system = 0
             ORDER BY lower(u.username)",
        )
        .bind(organization.to_string())
        .fetch_all(&self.read)
        .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let member = member(row)?;
            let user = self.user(member.user_id).await?;
            all.push((member, user));
        }
        Ok(all)
    }

    /// A user's git key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn git_ssh_key(&self, user: Uuid) -> Result<Option<GitSshKey>> {
        let row = sqlx::query("SELECT * FROM git_ssh_keys WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_optional(&self.read)
            .await?;
        optional(row.ok_or(Error::NotFound).and_then(|row| {
            Ok(GitSshKey {
                user_id: row.uuid("user_id")?,
                public_key: row.text("public_key")?,
                private_key: row.text("private_key")?,
                created_at: row.time("created_at")?,
                updated_at: row.time("updated_at")?,
            })
        }))
    }

    /// Sets a user's git key; the creation time of an older one stays.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_git_ssh_key(&self, user: Uuid, public: &str, private: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO git_ssh_keys (user_id, public_key, private_key, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $4)
             ON CONFLICT (user_id) DO UPDATE SET public_key = excluded.public_key,
                 private_key = excluded.private_key, updated_at = excluded.updated_at",
        )
        .bind(user.to_string())
        .bind(public)
        .bind(private)
        .bind(Time::now().as_micros())
        .execute(self.writer())
        .await?;
        Ok(())
    }
}

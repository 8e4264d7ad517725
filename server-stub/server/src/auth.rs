//! Who is asking: API keys of users and tokens of agents.

pub(crate) mod password;
pub(crate) mod scope;
pub(crate) mod ssh_key;

use adit_rest::{LoginType, SESSION_TOKEN_COOKIE, SESSION_TOKEN_HEADER, Time, UserStatus};
use adit_store::model::{AgentContext, ApiKey, User};
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rand::Rng as _;
use rand::distr::Alphanumeric;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::extract::Query;

const ID_LENGTH: usize = 10;
const SECRET_LENGTH: usize = 22;
/// Sessions are prolonged and uses noted at most this often.
const REFRESH: i64 = 3_600_000_000;
const SIGNED_OUT: &str =
    "You are signed out or your session has expired. Please sign in again to continue.";

/// The user who sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) user: User,
    pub(crate) key: ApiKey,
}

impl Actor {
    /// Whether the user may do everything.
    pub(crate) fn is_owner(&self) -> bool {
        self.user.is_owner()
    }

    /// Refuses everyone but owners.
    pub(crate) fn require_owner(&self) -> ApiResult<()> {
        if self.is_owner() {
            Ok(())
        } else {
            Err(ApiError::forbidden())
        }
    }
}

/// The agent that sent a request.
#[derive(Clone, Debug)]
pub(crate) struct AgentActor(pub(crate) AgentContext);

/// A new key and the token that is shown once.
#[derive(Clone)]
pub struct NewKey {
    /// What is stored.
    pub key: ApiKey,
    /// `<id>-<secret>`.
    pub token: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey")
            .field("key", &self.key.id)
            .finish_non_exhaustive()
    }
}

fn random(length: usize) -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(length)
        .map(char::from)
        .collect()
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether two texts are equal, in a time that does not depend on where they
/// differ.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
}

/// Makes a session key for a user; it is not stored yet.
#[must_use]
pub fn session_key(app: &App, user: Uuid) -> NewKey {
    let lifetime = app.config.session_duration.as_secs();
    new_key(
        user,
        LoginType::Password,
        i64::try_from(lifetime).unwrap_or(i64::MAX),
        "",
    )
}

/// Makes a key; it is not stored yet.
pub(crate) fn new_key(user: Uuid, kind: LoginType, lifetime_seconds: i64, name: &str) -> NewKey {
    let id = random(ID_LENGTH);
    let secret = random(SECRET_LENGTH);
    let now = Time::now();
    let key = ApiKey {
        id: id.clone(),
        user_id: user,
        hashed_secret: hash(&secret),
        login_type: kind,
        scope: "all".to_owned(),
        scopes: vec![scope::ALL.to_owned()],
        allow_list: vec!["*:*".to_owned()],
        token_name: name.to_owned(),
        lifetime_seconds,
        last_used: Time::from_micros(0),
        expires_at: now.plus_micros(lifetime_seconds.saturating_mul(1_000_000)),
        created_at: now,
        updated_at: now,
    };
    NewKey {
        key,
        token: format!("{id}-{secret}"),
    }
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The token of a request, from the first of its five places that has one.
pub(crate) fn token_of(headers: &HeaderMap, query: &Query) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    [
        cookie(headers, SESSION_TOKEN_COOKIE),
        query.get(SESSION_TOKEN_COOKIE),
        header(SESSION_TOKEN_HEADER),
        bearer,
        query.get("access_token"),
    ]
    .into_iter()
    .flatten()
    .find(|token| !token.is_empty())
    .map(str::to_owned)
}

fn signed_out(app: &App, detail: impl Into<String>) -> ApiError {
    let challenge = format!(
        "Bearer realm=\"coder\", error=\"invalid_token\", \
         error_description=\"The access token has expired\", \
         resource_metadata=\"{}/.well-known/oauth-protected-resource\"",
        app.access_url.as_str().trim_end_matches('/')
    );
    let error = ApiError::new(StatusCode::UNAUTHORIZED, SIGNED_OUT).detail(detail);
    match HeaderValue::from_str(&challenge) {
        Ok(value) => error.header(header::WWW_AUTHENTICATE, value),
        Err(_) => error,
    }
}

/// Finds the user of a token and notes the use.
pub(crate) async fn authenticate(app: &App, token: Option<&str>) -> ApiResult<Actor> {
    let Some(token) = token else {
        let detail =
            format!("Cookie {SESSION_TOKEN_COOKIE:?} or query parameter must be provided.");
        return Err(signed_out(app, detail));
    };
    let parts: Vec<&str> = token.split('-').collect();
    let [id, secret] = parts.as_slice() else {
        let detail = format!(
            "Invalid API key format: incorrect amount of API key parts, expected 2 got {}",
            parts.len()
        );
        return Err(signed_out(app, detail));
    };
    if id.len() != ID_LENGTH {
        return Err(signed_out(
            app,
            "Invalid API key format: invalid API key ID length",
        ));
    }
    if secret.len() != SECRET_LENGTH {
        return Err(signed_out(
            app,
            "Invalid API key format: invalid API key secret length",
        ));
    }
    let Some(key) = app.store.key(id).await? else {
        return Err(signed_out(app, "API key is invalid."));
    };
    if !equal(&key.hashed_secret, &hash(secret)) {
        return Err(signed_out(app, "API key secret is invalid."));
    }
    let now = Time::now();
    if key.expires_at <= now {
        let detail = format!("API key expired at {:?}.", key.expires_at.to_string());
        return Err(signed_out(app, detail));
    }
    let user = app.store.user(key.user_id).await?;
    if user.deleted {
        return Err(signed_out(app, "API key is invalid."));
    }
    if user.status == UserStatus::Suspended {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "User is not active (status = \"suspended\"). Contact an admin to reactivate your account.",
        ));
    }
    if key.scope == "application_connect" {
        return Err(ApiError::forbidden());
    }
    note_use(app, key, user, now).await
}

async fn note_use(app: &App, mut key: ApiKey, mut user: User, now: Time) -> ApiResult<Actor> {
    let stale = now.as_micros() - key.last_used.as_micros() > REFRESH;
    let lifetime = key.lifetime_seconds.saturating_mul(1_000_000);
    let prolong = key.login_type != LoginType::Token
        && key.expires_at.as_micros() - now.as_micros() <= lifetime - REFRESH;
    if stale || prolong {
        key.last_used = now;
        if prolong {
            key.expires_at = now.plus_micros(lifetime);
        }
        app.store
            .touch_key(&key.id, key.last_used, key.expires_at)
            .await?;
    }
    if now.as_micros() - user.last_seen_at.as_micros() > REFRESH {
        app.store.touch_user(user.id, now).await?;
        user = app.store.user(user.id).await?;
    }
    Ok(Actor { user, key })
}

impl FromRequestParts<App> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let actor = match parts.extensions.get::<Self>() {
            Some(known) => known.clone(),
            None => {
                let query = Query::parse(parts.uri.query());
                let token = token_of(&parts.headers, &query);
                authenticate(app, token.as_deref()).await?
            }
        };
        actor.check_request(&parts.method, parts.uri.path())?;
        Ok(actor)
    }
}

impl FromRequestParts<App> for AgentActor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let refuse = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message);
        let query = Query::parse(parts.uri.query());
        let Some(token) = token_of(&parts.headers, &query) else {
            return Err(refuse(&format!(
                "Cookie {SESSION_TOKEN_COOKIE:?} must be provided."
            )));
        };
        let Ok(id) = Uuid::try_parse(&token) else {
            let detail = format!(
                "An agent token must be a valid UUIDv4. (len {})",
                token.len()
            );
            return Err(refuse("Workspace agent token invalid.").detail(detail));
        };
        match app.store.agent_by_token(id).await? {
            Some(context) => Ok(Self(context)),
            None => Err(refuse("Workspace agent not authorized.").detail(
                "The agent cannot authenticate until the workspace provision job has been \
                 completed. If the job is no longer running, this agent is invalid.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_of_a_token_have_an_order() {
        let mut headers = HeaderMap::new();
        let query = Query::parse(Some("access_token=e"));
        assert_eq!(token_of(&headers, &query).unwrap(), "e");
        headers.insert("authorization", "bearer d".parse().unwrap());
        assert_eq!(token_of(&headers, &query).unwrap(), "d");
        headers.insert(SESSION_TOKEN_HEADER, "c".parse().unwrap());
        assert_eq!(token_of(&headers, &query).unwrap(), "c");
        let query = Query::parse(Some("access_token=e&coder_session_token=b"));
        assert_eq!(token_of(&headers, &query).unwrap(), "b");
        headers.insert("cookie", "x=1; coder_session_token=a".parse().unwrap());
        assert_eq!(token_of(&headers, &query).unwrap(), "a");
    }

    #[test]
    fn an_empty_header_is_anonymous() {
        let mut headers = HeaderMap::new();
        headers.insert(SESSION_TOKEN_HEADER, "".parse().unwrap());
        assert_eq!(token_of(&headers, &Query::default()), None);
    }

    #[test]
    fn keys_have_the_shape_clients_know() {
        let new = new_key(Uuid::nil(), LoginType::Token, 60, "n");
        let (id, secret) = new.token.split_once('-').unwrap();
        assert_eq!((id.len(), secret.len()), (10, 22));
        assert!(equal(&new.key.hashed_secret, &hash(secret)));
        assert!(!equal(&new.key.hashed_secret, &hash("other")));
    }
}

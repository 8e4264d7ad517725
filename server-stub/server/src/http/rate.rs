//! How many requests one may send.
//!
//! A fixed window of one minute per subject and path. A subject is a token at
//! an address, or the address alone for requests without a token. The table is
//! bounded: when it is full of open windows, each address has one for all that
//! is not in the table, so that whoever fills it only limits himself.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_rest::Time;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::error::ApiError;

const WINDOW: Duration = Duration::from_secs(60);
/// Logins a minute and address.
const LOGIN_LIMIT: u32 = 60;
/// Uploads a minute and user.
const FILES_LIMIT: u32 = 12;
const MAX_WINDOWS: usize = 4096;

/// Counts requests.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: u32,
    windows: Mutex<HashMap<u64, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    count: u32,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) refused: bool,
    limit: u32,
    remaining: u32,
    reset: i64,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) token: Option<&'a str>,
}

impl Subject<'_> {
    fn window(self, path: &str) -> u64 {
        let id = self.token.and_then(|token| token.split_once('-'));
        key((self.peer, id.map(|(id, _)| id), path))
    }

    /// The window for all that is not in the table.
    fn shared(self) -> u64 {
        key((self.peer, "shared"))
    }
}

fn key(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl RateLimiter {
    /// `limit` requests a minute; 0 is no limit.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            windows: Mutex::default(),
        }
    }

    fn limit_of(&self, path: &str) -> u32 {
        let group = match path {
            "/api/v2/users/login" => LOGIN_LIMIT,
            "/api/v2/files" => FILES_LIMIT,
            _ => self.limit,
        };
        if self.limit == 0 { 0 } else { group }
    }

    /// Counts one request.
    pub(crate) fn take(&self, subject: Subject<'_>, path: &str, exempt: bool) -> Verdict {
        let limit = self.limit_of(path);
        let now = Instant::now();
        let mut key = subject.window(path);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_WINDOWS && !windows.contains_key(&key) {
            windows.retain(|_, window| now.duration_since(window.start) < WINDOW);
            if windows.len() >= MAX_WINDOWS {
                key = subject.shared();
            }
        }
        let window = windows.entry(key).or_insert(Window {
            start: now,
            count: 0,
        });
        if now.duration_since(window.start) >= WINDOW {
            *window = Window {
                start: now,
                count: 0,
            };
        }
        if !exempt {
            window.count = window.count.saturating_add(1);
        }
        let rest = WINDOW.saturating_sub(now.duration_since(window.start));
        Verdict {
            refused: limit > 0 && !exempt && window.count > limit,
            limit,
            remaining: limit.saturating_sub(window.count.max(1)),
            reset: Time::now().as_secs() + i64::try_from(rest.as_secs()).unwrap_or(0),
        }
    }
}

impl Verdict {
    /// The reply to a request too many.
    pub(crate) fn refusal(&self) -> ApiError {
        let message = format!(
            "You've been rate limited for sending more than {} requests in 1m0s.",
            self.limit
        );
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
            .header(header::RETRY_AFTER, HeaderValue::from_static("60"))
    }

    /// Tells the client where it stands.
    pub(crate) fn annotate(&self, headers: &mut HeaderMap) {
        if self.limit == 0 {
            return;
        }
        headers.insert(
            HeaderName::from_static("x-ratelimit-limit"),
            self.limit.into(),
        );
        headers.insert(
            HeaderName::from_static("x-ratelimit-remaining"),
            self.remaining.into(),
        );
        headers.insert(
            HeaderName::from_static("x-ratelimit-reset"),
            self.reset.into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(token: &str) -> Subject<'_> {
        Subject {
            peer: None,
            token: Some(token),
        }
    }

    #[test]
    fn each_path_has_its_own_count() {
        let limiter = RateLimiter::new(2);
        let (one, two) = (token("one-x"), token("two-x"));
        assert!(!limiter.take(one, "/a", false).refused);
        assert!(!limiter.take(one, "/a", false).refused);
        assert!(limiter.take(one, "/a", false).refused);
        assert!(!limiter.take(one, "/b", false).refused);
        assert!(!limiter.take(two, "/a", false).refused);
        assert!(!limiter.take(one, "/a", true).refused);
    }

    #[test]
    fn the_table_is_bounded() {
        let limiter = RateLimiter::new(5);
        for n in 0..MAX_WINDOWS * 2 {
            limiter.take(token(&format!("{n}-x")), "/a", false);
        }
        assert!(
            limiter
                .windows
                .lock()
                .is_ok_and(|windows| windows.len() <= MAX_WINDOWS + 1)
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = RateLimiter::new(0);
        let path = "/api/v2/users/login";
        assert!((0..1000).all(|_| !limiter.take(token("a-b"), path, false).refused));
    }
}

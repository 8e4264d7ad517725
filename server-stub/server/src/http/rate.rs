//! How many requests one may send.
//!
//! A fixed window of one minute per subject and path. Subjects are tokens, or
//! addresses for requests without one. The table is bounded: when it is full of
//! open windows, further subjects share one.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
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
pub(crate) fn subject(peer: Option<IpAddr>, token: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match token.and_then(|token| token.split_once('-')) {
        Some((id, _)) => id.hash(&mut hasher),
        None => peer.hash(&mut hasher),
    }
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
    pub(crate) fn take(&self, subject: u64, path: &str, exempt: bool) -> Verdict {
        let limit = self.limit_of(path);
        let now = Instant::now();
        let mut hasher = DefaultHasher::new();
        (subject, path).hash(&mut hasher);
        let mut key = hasher.finish();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_WINDOWS && !windows.contains_key(&key) {
            windows.retain(|_, window| now.duration_since(window.start) < WINDOW);
            if windows.len() >= MAX_WINDOWS {
                key = 0;
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

    #[test]
    fn each_path_has_its_own_count() {
        let limiter = RateLimiter::new(2);
        assert!(!limiter.take(1, "/a", false).refused);
        assert!(!limiter.take(1, "/a", false).refused);
        assert!(limiter.take(1, "/a", false).refused);
        assert!(!limiter.take(1, "/b", false).refused);
        assert!(!limiter.take(2, "/a", false).refused);
        assert!(!limiter.take(1, "/a", true).refused);
    }

    #[test]
    fn the_table_is_bounded() {
        let limiter = RateLimiter::new(5);
        for subject in 0..MAX_WINDOWS as u64 * 2 {
            limiter.take(subject, "/a", false);
        }
        assert!(
            limiter
                .windows
                .lock()
                .is_ok_and(|w| w.len() <= MAX_WINDOWS + 1)
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = RateLimiter::new(0);
        for _ in 0..1000 {
            assert!(!limiter.take(1, "/api/v2/users/login", false).refused);
        }
    }
}

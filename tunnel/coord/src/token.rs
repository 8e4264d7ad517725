//! The token that keeps this side's peer id over a reconnect.

use std::time::{Duration, SystemTime};

use adit_messages::tailnet::RefreshResumeTokenResponse;
use adit_messages::time::{duration_from_proto, timestamp_from_proto};

/// Used when the server gives no sensible time.
const REFRESH: Duration = Duration::from_secs(30 * 60);

/// A resume token while it holds.
#[derive(Clone)]
pub(crate) struct ResumeToken {
    token: String,
    expires: SystemTime,
}

impl ResumeToken {
    /// Reads the server's answer; the second value says when to ask again.
    pub(crate) fn from_response(response: RefreshResumeTokenResponse) -> (Option<Self>, Duration) {
        let refresh = response
            .refresh_in
            .as_ref()
            .and_then(duration_from_proto)
            .filter(|d| !d.is_zero())
            .unwrap_or(REFRESH);
        let expires = response.expires_at.as_ref().and_then(timestamp_from_proto);
        let token = expires
            .filter(|_| !response.token.is_empty())
            .map(|expires| Self {
                token: response.token,
                expires,
            });
        (token, refresh)
    }

    /// The token, unless it expired.
    pub(crate) fn get(&self, now: SystemTime) -> Option<&str> {
        (now < self.expires).then_some(self.token.as_str())
    }
}

/// The token is a credential.
impl std::fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeToken")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use adit_messages::time::{duration_to_proto, timestamp_to_proto};

    use super::*;

    #[test]
    fn expired_and_incomplete_tokens_are_not_used() {
        let now = SystemTime::now();
        let response = RefreshResumeTokenResponse {
            token: "t".into(),
            refresh_in: Some(duration_to_proto(Duration::from_secs(5))),
            expires_at: Some(timestamp_to_proto(now + Duration::from_secs(60))),
        };
        let (token, refresh) = ResumeToken::from_response(response.clone());
        let token = token.expect("complete");
        assert_eq!(refresh, Duration::from_secs(5));
        assert_eq!(token.get(now), Some("t"));
        assert_eq!(token.get(now + Duration::from_secs(61)), None);
        let (token, refresh) = ResumeToken::from_response(RefreshResumeTokenResponse {
            expires_at: None,
            refresh_in: None,
            ..response
        });
        assert!(token.is_none());
        assert_eq!(refresh, REFRESH);
    }
}

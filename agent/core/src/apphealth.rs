//! Health of workspace apps, counted without clocks or sockets.

use std::time::Duration;

/// Health of an app, numbered as in `coder.agent.v2.AppHealth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No check is configured.
    Disabled,
    /// Not checked yet.
    Initializing,
    /// The last check succeeded.
    Healthy,
    /// More checks in a row failed than the threshold allows.
    Unhealthy,
}

impl Health {
    /// From the number on the wire; unknown numbers read as disabled.
    #[must_use]
    pub fn from_wire(n: i32) -> Self {
        match n {
            2 => Self::Initializing,
            3 => Self::Healthy,
            4 => Self::Unhealthy,
            _ => Self::Disabled,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub fn wire(self) -> i32 {
        match self {
            Self::Disabled => 1,
            Self::Initializing => 2,
            Self::Healthy => 3,
            Self::Unhealthy => 4,
        }
    }
}

/// How an app is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Identifier of the app.
    pub id: [u8; 16],
    /// Address to fetch.
    pub url: String,
    /// Time between checks.
    pub interval: Duration,
    /// Failures in a row that are forgiven.
    pub threshold: u32,
    /// Health before the first check.
    pub initial: Health,
}

impl Check {
    /// Whether this app is to be fetched at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.initial != Health::Disabled
            && !self.url.is_empty()
            && !self.interval.is_zero()
            && self.threshold > 0
    }
}

/// The healths of all apps of one manifest.
#[derive(Debug)]
pub struct AppHealths {
    apps: Vec<([u8; 16], Health, u32, u32)>,
    reported: Vec<Health>,
}

impl AppHealths {
    /// Begins with what the control plane knows.
    #[must_use]
    pub fn new(checks: &[Check]) -> Self {
        let apps: Vec<_> = checks
            .iter()
            .filter(|c| c.initial != Health::Disabled)
            .map(|c| (c.id, c.initial, 0, c.threshold))
            .collect();
        let reported = apps.iter().map(|a| a.1).collect();
        Self { apps, reported }
    }

    /// Whether there is any app to report on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// A check of `id` ended.
    pub fn handle_result(&mut self, id: [u8; 16], ok: bool) {
        let Some((_, health, failures, threshold)) = self.apps.iter_mut().find(|a| a.0 == id)
        else {
            return;
        };
        if ok {
            *failures = 0;
            *health = Health::Healthy;
        } else if *failures < *threshold {
            *failures += 1;
        } else {
            *health = Health::Unhealthy;
        }
    }

    /// All healths, if any changed since the last time this was asked.
    pub fn poll_report(&mut self) -> Option<Vec<([u8; 16], Health)>> {
        let now: Vec<Health> = self.apps.iter().map(|a| a.1).collect();
        if now == self.reported {
            return None;
        }
        self.reported = now;
        Some(self.apps.iter().map(|a| (a.0, a.1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: u8, initial: Health) -> Check {
        Check {
            id: [id; 16],
            url: "http://localhost:1".to_owned(),
            interval: Duration::from_secs(1),
            threshold: 2,
            initial,
        }
    }

    #[test]
    fn unhealthy_needs_one_failure_more_than_the_threshold() {
        let mut h = AppHealths::new(&[
            check(1, Health::Initializing),
            check(2, Health::Disabled),
            check(3, Health::Healthy),
        ]);
        assert_eq!(h.poll_report(), None);
        h.handle_result([1; 16], true);
        // All apps are reported, not only the changed one.
        assert_eq!(
            h.poll_report(),
            Some(vec![([1; 16], Health::Healthy), ([3; 16], Health::Healthy)])
        );
        h.handle_result([1; 16], false);
        h.handle_result([1; 16], false);
        assert_eq!(h.poll_report(), None);
        h.handle_result([1; 16], false);
        assert_eq!(h.poll_report().map(|r| r[0].1), Some(Health::Unhealthy));
        h.handle_result([1; 16], true);
        h.handle_result([1; 16], false);
        assert_eq!(h.poll_report().map(|r| r[0].1), Some(Health::Healthy));
        h.handle_result([9; 16], false);
    }

    #[test]
    fn incomplete_checks_are_not_run() {
        let mut c = check(1, Health::Initializing);
        assert!(c.is_active());
        c.threshold = 0;
        assert!(!c.is_active());
        c.threshold = 1;
        c.url.clear();
        assert!(!c.is_active());
    }
}

//! Telling the control plane who is connected.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// What kind of connection is reported. The numbers are those of the Coder
/// agent API (`Connection.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ConnectionKind {
    /// A session whose declared kind is unknown.
    Unspecified = 0,
    /// A plain SSH session.
    Ssh = 1,
    /// A VS Code session.
    VsCode = 2,
    /// A JetBrains IDE back end.
    JetBrains = 3,
    /// A terminal in the dashboard.
    ReconnectingPty = 4,
}

/// Receives connection events. Implementations queue and return at once.
pub trait ConnectionReporter: Send + Sync + 'static {
    /// A connection began. `ip` is the peer's address without port; may be
    /// empty.
    fn connected(&self, id: Uuid, kind: ConnectionKind, ip: &str);

    /// The connection ended with `code` (0 = fine) and `reason`.
    fn disconnected(&self, id: Uuid, kind: ConnectionKind, ip: &str, code: i32, reason: &str);
}

/// Counts what happened, by the name and the labels of a metric.
pub trait Tally: Send + Sync + 'static {
    /// Adds one to a counter.
    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]);
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl ConnectionReporter for Silent {
    fn connected(&self, _: Uuid, _: ConnectionKind, _: &str) {}
    fn disconnected(&self, _: Uuid, _: ConnectionKind, _: &str, _: i32, _: &str) {}
}

impl Tally for Silent {
    fn count(&self, _: &'static str, _: &[(&'static str, &str)]) {}
}

/// One reported connection. Reports the end exactly once: by
/// [`ReportGuard::finish`], or when dropped with the default outcome.
pub struct ReportGuard {
    reporter: Arc<dyn ConnectionReporter>,
    id: Uuid,
    kind: ConnectionKind,
    ip: String,
    code: i32,
    reason: String,
}

impl ReportGuard {
    /// Reports the begin. `ip`: peer address; the name `localhost` becomes
    /// `127.0.0.1`. `code` and `reason` are reported if the connection ends
    /// without [`ReportGuard::finish`].
    #[must_use]
    pub fn begin(
        reporter: Arc<dyn ConnectionReporter>,
        kind: ConnectionKind,
        ip: &str,
        code: i32,
        reason: &str,
    ) -> Self {
        let ip = if ip == "localhost" { "127.0.0.1" } else { ip }.to_owned();
        let id = Uuid::new_v4();
        reporter.connected(id, kind, &ip);
        Self {
            reporter,
            id,
            kind,
            ip,
            code,
            reason: reason.to_owned(),
        }
    }

    /// Reports the end.
    pub fn finish(mut self, code: i32, reason: impl Into<String>) {
        self.code = code;
        self.reason = reason.into();
    }
}

impl fmt::Debug for ReportGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportGuard")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Drop for ReportGuard {
    fn drop(&mut self) {
        self.reporter
            .disconnected(self.id, self.kind, &self.ip, self.code, &self.reason);
    }
}

//! placeholder for publishing the interface
/// The server's RSA host key.
#[derive(Clone)]
pub struct HostKey(pub(crate) russh::keys::PrivateKey);
impl HostKey {
    /// Derives the key of an agent. Takes tens of milliseconds of CPU: call
    /// it off the async executor (`spawn_blocking`).
    #[must_use]
    pub fn derive(_owner: &str, _workspace: &str, _agent: &str) -> Self {
        unreachable!()
    }
}
impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostKey")
    }
}

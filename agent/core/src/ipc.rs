//! The agent's socket in the workspace, for the programs that run there.
//!
//! Each connection carries DRPC calls of `coder.agentsocket.v1.AgentSocket`
//! one after the other. Only the agent's own user and root are served.

pub mod messages;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_drpc::server::{Call, Handler, Options, Reply, serve_stream};
use adit_drpc::{Error, Status};
use adit_messages::agent::UpdateAppStatusRequest;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::instance::Instance;
use crate::units::{self, Units};
use messages::{Dependency, Empty, List, Listed, Named, Ready, UnitStatus, Want};

/// Where the socket is unless the configuration says otherwise.
pub const DEFAULT_PATH: &str = "/tmp/coder-agent.sock";
/// Common beginning of the methods' paths.
const SERVICE: &str = "/coder.agentsocket.v1.AgentSocket/";
/// Most connections; more are dropped.
const MOST: usize = 256;
/// How long another agent may take to show that it is alive.
const PROBE: Duration = Duration::from_secs(10);
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(60);
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Serves the socket until dropped. Failure is only logged: scripts that do
/// not use it must not suffer.
pub(crate) async fn run(agent: Arc<Instance>) {
    let Some(path) = agent.config.socket_path.clone() else {
        return;
    };
    let (listener, _file) = match bind(&path).await {
        Ok(bound) => bound,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "the agent's socket cannot be opened");
            return;
        }
    };
    let service = Arc::new(Service {
        units: Mutex::default(),
        agent,
    });
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) if running.len() < MOST && is_welcome(&stream) => {
                        running.spawn(serve(stream, Arc::clone(&service)));
                    }
                    Ok(_) => tracing::debug!("a connection to the agent's socket was refused"),
                    Err(error) => {
                        tracing::debug!(%error, "the agent's socket");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}

/// Removes the socket's file at the end.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn bind(path: &Path) -> io::Result<(UnixListener, File)> {
    match timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|p| !p.exists()) {
                crate::scripts::make_private_dir(parent)?;
            }
        }
        // Left by an agent that was killed.
        Ok(Err(_)) => std::fs::remove_file(path)?,
        Ok(Ok(_)) | Err(_) => {
            let text = "another agent answers there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
    }
    let listener = UnixListener::bind(path)?;
    let file = File(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, file))
}

fn is_welcome(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn serve(stream: UnixStream, service: Arc<Service>) {
    if let Err(error) = serve_stream(stream, &*service, Options::default()).await {
        tracing::debug!(%error, "a connection to the agent's socket ended");
    }
}

struct Service {
    units: Mutex<Units>,
    agent: Arc<Instance>,
}

impl Service {
    fn units(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, method: &str, request: &[u8]) -> Result<Vec<u8>, Status> {
        let refused = |error: units::UnitError| Status::new(error.to_string());
        let nothing = Empty {}.encode_to_vec();
        Ok(match method {
            "Ping" => nothing,
            "SyncStart" => {
                let Named { unit } = decode(request)?;
                self.units().handle_start(&unit).map_err(refused)?;
                nothing
            }
            "SyncComplete" => {
                let Named { unit } = decode(request)?;
                self.units().handle_complete(&unit).map_err(refused)?;
                nothing
            }
            "SyncWant" => {
                let Want { unit, depends_on } = decode(request)?;
                let mut units = self.units();
                units.handle_want(&unit, &depends_on).map_err(refused)?;
                nothing
            }
            "SyncReady" => {
                let Named { unit } = decode(request)?;
                let ready = self.units().is_ready(&unit);
                Ready { ready }.encode_to_vec()
            }
            "SyncStatus" => {
                let Named { unit } = decode(request)?;
                status(&self.units(), &unit).encode_to_vec()
            }
            "SyncList" => list(&self.units()).encode_to_vec(),
            "UpdateAppStatus" => {
                let request: UpdateAppStatusRequest = decode(request)?;
                let control = self.agent.control.borrow().clone();
                let Some(control) = control else {
                    return Err(Status::new("agent not connected to coderd"));
                };
                let answer = control.update_app_status(&request).await;
                answer
                    .map_err(|e| e.status().cloned().unwrap_or(Status::new(e.to_string())))?
                    .encode_to_vec()
            }
            _ => return Err(Status::unimplemented()),
        })
    }
}

impl Handler for Service {
    async fn call(&self, mut call: Call) -> Result<Reply, Status> {
        let request = match timeout(REQUEST, call.requests.single()).await {
            Ok(request) => request.map_err(|e| Status::new(e.to_string()))?,
            Err(_) => return Err(Status::new("the request did not arrive")),
        };
        let method = call.path.strip_prefix(SERVICE).unwrap_or_default();
        let answer = self.answer(method, &request).await?;
        Ok(Reply::Unary(answer.into()))
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::new(e.to_string()))
}

fn status(units: &Units, unit: &str) -> UnitStatus {
    let required = units::Status::Completed;
    let dependencies = units.dependencies(unit).into_iter().map(|d| Dependency {
        unit: unit.to_owned(),
        depends_on: d.on,
        required_status: required.name().to_owned(),
        current_status: d.status.name().to_owned(),
        is_satisfied: d.status == required,
    });
    UnitStatus {
        status: units.status(unit).name().to_owned(),
        is_ready: units.is_ready(unit),
        dependencies: dependencies.collect(),
    }
}

fn list(units: &Units) -> List {
    let listed = |unit: &str| Listed {
        unit: unit.to_owned(),
        status: units.status(unit).name().to_owned(),
        is_ready: units.is_ready(unit),
    };
    List {
        units: units.names().map(listed).collect(),
    }
}

/// Calls of programs in the workspace.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the agent whose socket is at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Calls a method by its name. Takes at most 10 s.
    ///
    /// # Errors
    /// The agent cannot be reached or refuses.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, Error> {
        let call = async {
            let stream = UnixStream::connect(&self.path).await?;
            let path = format!("{SERVICE}{method}");
            adit_drpc::client::unary(stream, &path, &[], request).await
        };
        timeout(ANSWER, call).await.unwrap_or(Err(Error::Timeout))
    }
}

#[cfg(test)]
mod tests;

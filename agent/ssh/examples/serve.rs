//! Serves SSH on a loopback port, without a tunnel and without a control
//! plane: for trying clients and measuring.
//!
//! ```text
//! cargo run --release -p adit-agent-ssh --example serve -- 127.0.0.1:2222
//! ```

use std::error::Error;
use std::sync::Arc;

use adit_agent_exec::{Silent, StaticContext};
use adit_agent_ssh::{Config, HostKey, Server};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:2222".into());
    // Whoever reaches the port may run commands.
    let listener = TcpListener::bind(&address).await?;
    if !listener.local_addr()?.ip().is_loopback() {
        return Err("only loopback addresses are served".into());
    }
    let context = StaticContext::of_this_process();
    let config = Config::new(Arc::new(context), Arc::new(Silent));
    let server = Server::new(config, &HostKey::derive("example", "dev", "main")?);
    let mut connections = JoinSet::new();
    loop {
        let (stream, remote) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        connections.spawn(async move { server.serve(stream, Some(remote)).await });
        while connections.try_join_next().is_some() {}
    }
}

//! `port-forward`: ports of a workspace on this machine.

use anyhow::{Result, anyhow, bail};

use crate::{
    api::Api,
    cli::{PortForwardArgs, Wait},
    forward::Forwarder,
    name::WorkspaceRef,
    ports::{self, Protocol},
    resolve::{self, Autostart},
    settings::Settings,
    tunnel::Tunnel,
    usage::Usage,
};

/// Forwards until interrupted.
pub(crate) async fn run(settings: &Settings, args: &PortForwardArgs) -> Result<()> {
    let mut forwards = Vec::new();
    for (protocol, specs) in [(Protocol::Tcp, &args.tcp), (Protocol::Udp, &args.udp)] {
        for spec in specs {
            forwards.extend(ports::parse(protocol, spec).map_err(|why| anyhow!(why))?);
        }
    }
    if forwards.is_empty() {
        bail!("no port-forwards requested: name ports with --tcp or --udp");
    }
    let api = Api::of(settings).await?;
    let reference = WorkspaceRef::parse(&args.workspace)?;
    let autostart = if args.disable_autostart {
        Autostart::No
    } else {
        Autostart::Yes
    };
    let mut target = resolve::agent(&api, &reference, autostart).await?;
    resolve::ready(&api, &mut target, Wait::No, false).await?;
    let tunnel = Tunnel::open(settings, &api, target.agent.id).await?;
    let mut forwarder = Forwarder::new(&tunnel);
    for forward in &forwards {
        for local in forwarder.listen(forward).await? {
            eprintln!(
                "Forwarding '{}://{local}' locally to '{}://127.0.0.1:{}' in the workspace",
                forward.protocol, forward.protocol, forward.remote
            );
        }
    }
    let _usage = Usage::report(&api, target.workspace.id, None);
    eprintln!("Ready!");
    let result = tokio::select! {
        ended = forwarder.run() => ended,
        () = crate::signal::interrupted() => {
            eprintln!("\nReceived signal, closing all listeners and active connections");
            Ok(())
        }
    };
    tunnel.close().await;
    result
}

//! `open`: a page of a workspace in this machine's browser, or the workspace
//! in VS Code.

use std::process::Stdio;

use adit_rest::GenerateApiKeyResponse;
use anyhow::{Context as _, Result};
use serde_json::json;
use url::Url;

use crate::{
    api::Api,
    cli::{OpenArgs, OpenCommand, Wait},
    forward::Forwarder,
    name::WorkspaceRef,
    ports::{Forward, Protocol},
    resolve::{self, Autostart},
    settings::Settings,
    tunnel::Tunnel,
    usage::Usage,
};

/// Opens what was asked for.
pub(crate) async fn run(settings: &Settings, args: OpenArgs) -> Result<()> {
    if let Some(OpenCommand::Vscode {
        workspace,
        directory,
        generate_token,
    }) = &args.what
    {
        return vscode(settings, workspace, directory.as_deref(), *generate_token).await;
    }
    let name = args
        .workspace
        .as_deref()
        .context("name the workspace and the port, as in 'adit open dev 8080'")?;
    let port = args
        .port
        .with_context(|| format!("name the port to open, as in 'adit open {name} 8080'"))?;
    page(settings, name, port, &args).await
}

async fn page(settings: &Settings, name: &str, port: u16, args: &OpenArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let mut target = resolve::agent(&api, &WorkspaceRef::parse(name)?, Autostart::Yes).await?;
    resolve::ready(&api, &mut target, Wait::No, false).await?;
    let tunnel = Tunnel::open(settings, &api, target.agent.id).await?;
    let mut forwarder = Forwarder::new(&tunnel);
    let forward = |local| Forward {
        protocol: Protocol::Tcp,
        bind: None,
        local,
        remote: port,
    };
    let bound = match args.local_port {
        Some(local) => forwarder.listen(&forward(local)).await?,
        None => match forwarder.listen(&forward(port)).await {
            Ok(bound) => bound,
            // Taken, or below 1024: any free port serves as well.
            Err(_) => forwarder.listen(&forward(0)).await?,
        },
    };
    let local = bound.first().context("no local port")?.port();
    let scheme = if args.https { "https" } else { "http" };
    let mut url =
        Url::parse(&format!("{scheme}://localhost:{local}/")).context("address of the page")?;
    let path = url
        .join(&args.path)
        .with_context(|| format!("{:?} is not the path of a page", args.path))?;
    if path.origin() == url.origin() {
        url = path;
    }
    println!("{url}");
    if !args.print {
        browse(url.as_str());
    }
    eprintln!(
        "Forwarding {} to port {port} of {}. Press Ctrl-C to end.",
        local,
        target.name()
    );
    let _usage = Usage::report(&api, target.workspace.id, None);
    let result = tokio::select! {
        ended = forwarder.run() => ended,
        () = crate::signal::interrupted() => Ok(()),
    };
    tunnel.close().await;
    result
}

async fn vscode(
    settings: &Settings,
    name: &str,
    directory: Option<&str>,
    generate_token: bool,
) -> Result<()> {
    let login = settings.login()?;
    let api = Api::of(settings).await?;
    let mut target = resolve::agent(&api, &WorkspaceRef::parse(name)?, Autostart::Yes).await?;
    resolve::ready(&api, &mut target, Wait::No, false).await?;
    let folder = match directory {
        Some(directory) if directory.starts_with('/') => directory.to_owned(),
        Some(directory) => format!(
            "{}/{directory}",
            target.agent.expanded_directory.trim_end_matches('/')
        ),
        None => target.agent.expanded_directory.clone(),
    };
    let mut url = Url::parse("vscode://coder.coder-remote/open").context("address of VS Code")?;
    {
        let mut query = url.query_pairs_mut();
        query
            .append_pair("url", login.url.as_str().trim_end_matches('/'))
            .append_pair("owner", &target.workspace.owner_name)
            .append_pair("workspace", &target.workspace.name)
            .append_pair("agent", &target.agent.name);
        if !folder.is_empty() {
            query.append_pair("folder", &folder);
        }
        if generate_token {
            let key: GenerateApiKeyResponse = api.post("/api/v2/users/me/keys", &json!({})).await?;
            query.append_pair("token", &key.key);
        }
    }
    if generate_token {
        // The address holds a session token: it goes to the program that is
        // to use it, and to whoever asked for it, but to no log.
        println!("{url}");
    } else {
        println!("Opening {url}");
    }
    browse(url.as_str());
    Ok(())
}

/// Hands the address to the desktop; a machine without one keeps the printed
/// address.
fn browse(url: &str) {
    let (program, args): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let started = std::process::Command::new(program)
        .args(args)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if started.is_err() {
        eprintln!("adit: no browser was found; open the address yourself");
    }
}

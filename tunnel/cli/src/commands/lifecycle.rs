//! `start`, `stop`, `restart` and `delete`.

use adit_rest::{
    BuildParameter, CreateWorkspaceBuildRequest, Time, Transition, UpdateDormancy, Workspace,
    WorkspaceBuild, WorkspaceStatus,
};
use anyhow::{Context as _, Result};

use crate::{
    api::Api,
    build_log,
    cli::{ConfirmArgs, DeleteArgs, StartArgs},
    commands::create::parse_parameters,
    prompt, resolve,
    settings::Settings,
    status,
};

/// Starts a workspace unless it runs already.
pub(crate) async fn start(settings: &Settings, args: &StartArgs) -> Result<()> {
    let parameters = parse_parameters(&args.parameter)?;
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    let build = &workspace.latest_build;
    match build.status {
        WorkspaceStatus::Running => {
            println!("\nThe {} workspace is already running!", workspace.name);
            return Ok(());
        }
        WorkspaceStatus::Starting | WorkspaceStatus::Pending
            if build.transition == Transition::Start =>
        {
            if !args.no_wait {
                build_log::wait(&api, build, build_log::Show::All).await?;
            }
        }
        status => {
            if build.job.completed_at.is_none() {
                build_log::wait(&api, build, build_log::Show::All).await?;
            }
            if status == WorkspaceStatus::Failed && build.transition == Transition::Start {
                // What a failed start left behind is taken down first.
                run_build(&api, &workspace, "stop", Vec::new(), None).await?;
            }
            if workspace.dormant_at.is_some() {
                let path = format!("/api/v2/workspaces/{}/dormant", workspace.id);
                api.send(
                    http::Method::PUT,
                    &path,
                    Some(&UpdateDormancy { dormant: false }),
                )
                .await
                .context("wake the dormant workspace")?;
            }
            let build =
                post_build(&api, &workspace, "start", parameters, args.reason.clone()).await?;
            if !args.no_wait {
                build_log::wait(&api, &build, build_log::Show::All).await?;
            }
        }
    }
    if args.no_wait {
        println!(
            "The {} workspace has been started in no-wait mode. Workspace is building in the background.",
            workspace.name
        );
    } else {
        done(&workspace, "started");
    }
    Ok(())
}

/// Stops a workspace.
pub(crate) async fn stop(settings: &Settings, args: &ConfirmArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    if !args.yes {
        prompt::confirm("Confirm stop workspace?")?;
    }
    finish_pending(&api, &workspace).await?;
    run_build(&api, &workspace, "stop", Vec::new(), None).await?;
    done(&workspace, "stopped");
    Ok(())
}

/// Stops a workspace and starts it again.
pub(crate) async fn restart(settings: &Settings, args: &ConfirmArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    if !args.yes {
        prompt::confirm("Restart workspace?")?;
    }
    finish_pending(&api, &workspace).await?;
    run_build(&api, &workspace, "stop", Vec::new(), None).await?;
    run_build(&api, &workspace, "start", Vec::new(), None).await?;
    done(&workspace, "restarted");
    Ok(())
}

/// Deletes a workspace.
pub(crate) async fn delete(settings: &Settings, args: &DeleteArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    let idle = status::since(workspace.last_used_at, Time::now()).as_secs() / 86_400;
    eprintln!(
        "{}/{} was last used {idle} days ago",
        workspace.owner_name, workspace.name
    );
    if !args.yes {
        prompt::confirm("Confirm delete workspace?")?;
    }
    finish_pending(&api, &workspace).await?;
    let request = CreateWorkspaceBuildRequest {
        transition: "delete".to_owned(),
        orphan: args.orphan,
        ..CreateWorkspaceBuildRequest::default()
    };
    let build: WorkspaceBuild = api
        .post(
            &format!("/api/v2/workspaces/{}/builds", workspace.id),
            &request,
        )
        .await
        .with_context(|| format!("delete workspace {:?}", workspace.name))?;
    build_log::wait(&api, &build, build_log::Show::All).await?;
    println!(
        "\n{}/{} has been deleted at {}!",
        workspace.owner_name,
        workspace.name,
        now()
    );
    Ok(())
}

async fn finish_pending(api: &Api, workspace: &Workspace) -> Result<()> {
    if workspace.latest_build.job.completed_at.is_none() {
        eprintln!("adit: waiting for the build that is running");
        // Its outcome is shown; what follows is right after either.
        if let Err(error) =
            build_log::wait(api, &workspace.latest_build, build_log::Show::Stages).await
        {
            eprintln!("adit: that build failed: {error:#}");
        }
    }
    Ok(())
}

async fn run_build(
    api: &Api,
    workspace: &Workspace,
    transition: &str,
    parameters: Vec<BuildParameter>,
    reason: Option<String>,
) -> Result<()> {
    let build = post_build(api, workspace, transition, parameters, reason).await?;
    build_log::wait(api, &build, build_log::Show::All).await
}

async fn post_build(
    api: &Api,
    workspace: &Workspace,
    transition: &str,
    parameters: Vec<BuildParameter>,
    reason: Option<String>,
) -> Result<WorkspaceBuild> {
    let path = format!("/api/v2/workspaces/{}/builds", workspace.id);
    let always_newest = workspace.template_require_active_version
        || workspace.automatic_updates == adit_rest::AutomaticUpdates::Always;
    let mut request = CreateWorkspaceBuildRequest {
        transition: transition.to_owned(),
        rich_parameter_values: parameters,
        reason: reason.unwrap_or_default(),
        ..CreateWorkspaceBuildRequest::default()
    };
    if transition == "start" {
        request.template_version_id = if always_newest {
            workspace.template_active_version_id
        } else {
            workspace.latest_build.template_version_id
        };
    }
    match api.post(&path, &request).await {
        Err(error) if api.status_of(&error) == Some(403) && transition == "start" => {
            // The template insists on its active version.
            request.template_version_id = workspace.template_active_version_id;
            api.post(&path, &request).await
        }
        result => result,
    }
    .with_context(|| format!("{transition} workspace {:?}", workspace.name))
}

fn done(workspace: &Workspace, what: &str) {
    println!(
        "\nThe {} workspace has been {what} at {}!",
        workspace.name,
        now()
    );
}

fn now() -> impl std::fmt::Display {
    jiff::Zoned::now().strftime("%b %d %H:%M:%S").to_string()
}

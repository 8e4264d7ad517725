//! `list`: the workspaces one can reach.

use adit_rest::{JobStatus, Time, Transition, Workspace, WorkspacesResponse};
use anyhow::{Result, bail};

use crate::{
    api::Api,
    cli::{ListArgs, Output},
    duration, schedule,
    settings::Settings,
    status,
    table::table,
};

/// Default columns, in order.
const COLUMNS: [&str; 9] = [
    "workspace",
    "template",
    "status",
    "healthy",
    "last built",
    "current version",
    "outdated",
    "starts at",
    "stops after",
];

/// Prints the table or the JSON of the control plane.
pub(crate) async fn run(settings: &Settings, args: &ListArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let query = if args.all { "" } else { args.search.as_str() };
    let found: WorkspacesResponse = api
        .get(&format!("/api/v2/workspaces?q={}", api.encode(query)))
        .await?;
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&found.workspaces)?);
        return Ok(());
    }
    if found.workspaces.is_empty() {
        eprintln!("No workspaces found! Create one:\n\n  adit create <name>\n");
        return Ok(());
    }
    let columns: Vec<String> = if args.column.is_empty() {
        COLUMNS.map(str::to_owned).to_vec()
    } else {
        args.column
            .iter()
            .map(|column| column.trim().to_lowercase())
            .collect()
    };
    let now = Time::now();
    let rows = found
        .workspaces
        .iter()
        .map(|workspace| {
            columns
                .iter()
                .map(|column| cell(workspace, column, now))
                .collect::<Result<Vec<String>>>()
        })
        .collect::<Result<Vec<_>>>()?;
    let headers: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    print!("{}", table(&headers, &rows));
    Ok(())
}

fn cell(workspace: &Workspace, column: &str, now: Time) -> Result<String> {
    let build = &workspace.latest_build;
    let running = build.transition == Transition::Start && build.job.status == JobStatus::Succeeded;
    Ok(match column {
        "workspace" => format!("{}/{}", workspace.owner_name, workspace.name),
        "favorite" => workspace.favorite.to_string(),
        "workspace id" => workspace.id.to_string(),
        "organization id" => workspace.organization_id.to_string(),
        "organization name" => workspace.organization_name.clone(),
        "template" => workspace.template_name.clone(),
        "status" => status::workspace(workspace).to_owned(),
        "healthy" if running => workspace.health.healthy.to_string(),
        "healthy" => String::new(),
        "last built" => duration::age(status::since(build.job.created_at, now)),
        "current version" => build.template_version_name.clone(),
        "outdated" => workspace.outdated.to_string(),
        "starts at" => workspace
            .autostart_schedule
            .as_deref()
            .map(schedule::describe)
            .unwrap_or_default(),
        "stops after" => workspace
            .ttl_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .map(|ms| duration::coarse(std::time::Duration::from_millis(ms)))
            .unwrap_or_default(),
        "daily cost" => build.daily_cost.to_string(),
        other => bail!(
            "unknown column {other:?}; there are: {}, favorite, workspace id, organization id, organization name, daily cost",
            COLUMNS.join(", ")
        ),
    })
}

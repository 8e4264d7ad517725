//! `create`: a new workspace, from a template and perhaps a preset. Where the
//! control plane keeps prebuilt workspaces of the preset, it hands one over.

use std::io::IsTerminal as _;

use adit_rest::{
    BuildParameter, CreateWorkspaceRequest, Preset, Template, TemplateVersion,
    TemplateVersionParameter, Workspace,
};
use anyhow::{Context as _, Result, anyhow, bail};
use uuid::Uuid;

use crate::{api::Api, build_log, cli::CreateArgs, name, prompt, schedule, settings::Settings};

/// Creates the workspace and waits for its build.
pub(crate) async fn run(settings: &Settings, args: CreateArgs) -> Result<()> {
    let (owner, workspace_name) = name::parse_new(&args.name).map_err(|why| anyhow!(why))?;
    let api = Api::of(settings).await?;
    let existing = api
        .get::<Workspace>(&format!("/api/v2/users/{owner}/workspace/{workspace_name}"))
        .await;
    match existing {
        Ok(_) => bail!("a workspace already exists named {workspace_name:?}"),
        Err(error) if api.status_of(&error) == Some(404) => {}
        Err(error) => return Err(error).context("look for a workspace of that name"),
    }
    let template = template(&api, args.template.as_deref()).await?;
    let version = match &args.template_version {
        Some(name) => {
            let version: TemplateVersion = api
                .get(&format!(
                    "/api/v2/templates/{}/versions/{}",
                    template.id,
                    api.encode(name)
                ))
                .await
                .with_context(|| {
                    format!("find version {name:?} of template {:?}", template.name)
                })?;
            version.id
        }
        None => template.active_version_id,
    };
    let preset = preset(&api, version, args.preset.as_deref()).await?;
    match &preset {
        Some(preset) => {
            println!("Preset '{}' applied:", preset.name);
            for parameter in preset.parameters.iter().flatten() {
                println!("  {}: '{}'", parameter.name, parameter.value);
            }
        }
        None => println!("No preset applied."),
    }
    let parameters = parameters(&api, version, preset.as_ref(), &args).await?;
    if !args.yes {
        prompt::confirm("Confirm create?")?;
    }
    let request = CreateWorkspaceRequest {
        template_version_id: version,
        name: workspace_name.clone(),
        autostart_schedule: args
            .start_at
            .as_deref()
            .map(|text| schedule::to_cron(text, &local_zone()))
            .transpose()
            .map_err(|why| anyhow!(why))?,
        ttl_ms: args
            .stop_after
            .map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
        rich_parameter_values: parameters,
        automatic_updates: "never".to_owned(),
        template_version_preset_id: preset.map_or(Uuid::nil(), |preset| preset.id),
        ..CreateWorkspaceRequest::default()
    };
    let workspace: Workspace = api
        .post(&format!("/api/v2/users/{owner}/workspaces"), &request)
        .await
        .with_context(|| format!("create workspace {workspace_name:?}"))?;
    if args.no_wait {
        println!(
            "\nThe {workspace_name} workspace has been created and is building in the background."
        );
        return Ok(());
    }
    build_log::wait(&api, &workspace.latest_build, build_log::Show::All).await?;
    println!(
        "\nThe {workspace_name} workspace has been created at {}!",
        jiff::Zoned::now().strftime("%b %d %H:%M:%S")
    );
    Ok(())
}

async fn template(api: &Api, wanted: Option<&str>) -> Result<Template> {
    let Some(wanted) = wanted else {
        let templates: Vec<Template> = api.get("/api/v2/templates").await?;
        return match templates.len() {
            0 => bail!("there is no template on this control plane"),
            1 => templates.into_iter().next().context("one template"),
            _ => {
                let names: Vec<&str> = templates
                    .iter()
                    .map(|template| template.name.as_str())
                    .collect();
                bail!(
                    "name the template with --template; there are: {}",
                    names.join(", ")
                )
            }
        };
    };
    let query = api.encode(&format!("exact_name:\"{wanted}\""));
    let found: Vec<Template> = api.get(&format!("/api/v2/templates?q={query}")).await?;
    found
        .into_iter()
        .find(|template| template.name.eq_ignore_ascii_case(wanted))
        .ok_or_else(|| anyhow!("no template found with the name {wanted:?}"))
}

async fn preset(api: &Api, version: Uuid, wanted: Option<&str>) -> Result<Option<Preset>> {
    if wanted == Some("none") {
        return Ok(None);
    }
    let presets: Vec<Preset> = api
        .get::<Option<Vec<Preset>>>(&format!("/api/v2/templateversions/{version}/presets"))
        .await?
        .unwrap_or_default();
    match wanted {
        Some(wanted) => {
            let names: Vec<String> = presets.iter().map(|preset| preset.name.clone()).collect();
            presets
                .into_iter()
                .find(|preset| preset.name == wanted)
                .map(Some)
                .ok_or_else(|| match names.len() {
                    0 => anyhow!("unable to find preset {wanted:?}: the template has none"),
                    _ => anyhow!(
                        "unable to find preset {wanted:?}; there are: {}",
                        names.join(", ")
                    ),
                })
        }
        None => Ok(presets.into_iter().find(|preset| preset.default)),
    }
}

/// Values for the build: the preset's, then the flags'. What is required and
/// has neither is asked for.
async fn parameters(
    api: &Api,
    version: Uuid,
    preset: Option<&Preset>,
    args: &CreateArgs,
) -> Result<Vec<BuildParameter>> {
    let known: Vec<TemplateVersionParameter> = api
        .get(&format!(
            "/api/v2/templateversions/{version}/rich-parameters"
        ))
        .await?;
    let mut values: Vec<BuildParameter> = preset
        .and_then(|preset| preset.parameters.as_ref())
        .into_iter()
        .flatten()
        .map(|parameter| BuildParameter {
            name: parameter.name.clone(),
            value: parameter.value.clone(),
        })
        .collect();
    for given in parse_parameters(&args.parameter)? {
        if !known.iter().any(|parameter| parameter.name == given.name) {
            let names: Vec<&str> = known
                .iter()
                .map(|parameter| parameter.name.as_str())
                .collect();
            bail!(
                "the template has no parameter {:?}; it has: {}",
                given.name,
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            );
        }
        values.retain(|value| value.name != given.name);
        values.push(given);
    }
    let interactive = std::io::stdin().is_terminal() && !args.yes;
    for parameter in &known {
        if values.iter().any(|value| value.name == parameter.name) || parameter.ephemeral {
            continue;
        }
        let value = match (
            parameter.required,
            interactive && !args.use_parameter_defaults,
        ) {
            (true, true) => prompt::line(&format!("{}:", parameter.name))?,
            (true, false) => bail!(
                "parameter {:?} is required: give --parameter {}=<value>",
                parameter.name,
                parameter.name
            ),
            (false, _) => parameter.default_value.clone(),
        };
        values.push(BuildParameter {
            name: parameter.name.clone(),
            value,
        });
    }
    Ok(values)
}

/// Reads `NAME=VALUE` flags.
pub(crate) fn parse_parameters(flags: &[String]) -> Result<Vec<BuildParameter>> {
    flags
        .iter()
        .map(|flag| {
            let (name, value) = flag
                .split_once('=')
                .with_context(|| format!("parameter {flag:?} is not NAME=VALUE"))?;
            Ok(BuildParameter {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        })
        .collect()
}

fn local_zone() -> String {
    jiff::tz::TimeZone::system()
        .iana_name()
        .unwrap_or("UTC")
        .to_owned()
}

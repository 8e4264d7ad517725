//! Templates, versions, parameters and presets.

use std::collections::BTreeMap;

use adit_rest as rest;
use adit_store::model::{Preset, Template, TemplateVersion};

use super::workspace::job;
use crate::app::App;
use crate::error::ApiResult;

const WEEK: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

pub(crate) async fn template(app: &App, row: &Template) -> ApiResult<rest::Template> {
    let organization = app.store.organization(row.organization_id).await?;
    let author = app.store.user(row.created_by).await?;
    let (active_user_count, durations) = app.store.template_usage(row.id).await?;
    let options = &row.options;
    Ok(rest::Template {
        id: row.id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        organization_id: row.organization_id,
        organization_name: organization.name,
        organization_display_name: organization.display_name,
        organization_icon: organization.icon,
        name: row.name.clone(),
        display_name: options.display_name.clone(),
        provisioner: row.provisioner.clone(),
        active_version_id: row.active_version_id,
        active_user_count,
        build_time_stats: ["delete", "start", "stop"]
            .into_iter()
            .map(|kind| (kind.to_owned(), percentiles(&durations, kind)))
            .collect::<BTreeMap<_, _>>(),
        description: options.description.clone(),
        deprecated: !options.deprecation_message.is_empty(),
        deprecation_message: options.deprecation_message.clone(),
        deleted: row.deleted,
        icon: options.icon.clone(),
        default_ttl_ms: options.default_ttl_ms,
        activity_bump_ms: options.activity_bump_ms,
        time_til_autostop_notify_ms: 0,
        autostop_requirement: rest::AutostopRequirement {
            days_of_week: Vec::new(),
            weeks: 1,
        },
        autostart_requirement: rest::AutostartRequirement {
            days_of_week: WEEK.map(str::to_owned).to_vec(),
        },
        created_by_id: row.created_by,
        created_by_name: author.username,
        allow_user_autostart: options.allow_user_autostart,
        allow_user_autostop: options.allow_user_autostop,
        allow_user_cancel_workspace_jobs: options.allow_user_cancel_workspace_jobs,
        failure_ttl_ms: options.failure_ttl_ms,
        time_til_dormant_ms: options.time_til_dormant_ms,
        time_til_dormant_autodelete_ms: options.time_til_dormant_autodelete_ms,
        require_active_version: options.require_active_version,
        max_port_share_level: rest::SharingLevel::Public,
        cors_behavior: "simple".to_owned(),
        use_classic_parameter_flow: options.use_classic_parameter_flow,
        disable_module_cache: false,
    })
}

fn percentiles(durations: &[(String, i64)], kind: &str) -> rest::TransitionStats {
    let mut of_kind: Vec<i64> = durations
        .iter()
        .filter(|(name, _)| name == kind)
        .map(|(_, ms)| *ms)
        .collect();
    of_kind.sort_unstable();
    let at = |percent: usize| {
        let last = of_kind.len().checked_sub(1)?;
        of_kind.get(last * percent / 100).copied()
    };
    rest::TransitionStats {
        p50: at(50),
        p95: at(95),
    }
}

pub(crate) async fn version(app: &App, row: &TemplateVersion) -> ApiResult<rest::TemplateVersion> {
    let author = app.store.user(row.created_by).await?;
    Ok(rest::TemplateVersion {
        id: row.id,
        template_id: row.template_id,
        organization_id: row.organization_id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        name: row.name.clone(),
        message: row.message.clone(),
        job: job(app, &app.store.job(row.job_id).await?).await?,
        readme: row.readme.clone(),
        created_by: rest::MinimalUser {
            id: author.id,
            username: author.username,
            name: author.name,
            avatar_url: author.avatar_url,
        },
        archived: row.archived,
        warnings: Vec::new(),
        matched_provisioners: None,
        has_external_agent: false,
    })
}

pub(crate) fn preset(row: Preset) -> rest::Preset {
    rest::Preset {
        id: row.id,
        name: row.name,
        parameters: (!row.parameters.is_empty()).then_some(row.parameters),
        default: row.is_default,
        desired_prebuild_instances: row.desired_instances,
        description: row.description,
        icon: row.icon,
    }
}

/// Parameters of a version for the classic flow.
pub(crate) fn parameters(row: &TemplateVersion) -> Vec<rest::TemplateVersionParameter> {
    row.spec.parameters.clone()
}

/// A parameter as it looks with a value.
pub(crate) fn preview(
    order: usize,
    parameter: &rest::TemplateVersionParameter,
    value: Option<&str>,
    diagnostics: Vec<rest::Diagnostic>,
) -> rest::PreviewParameter {
    let known = |text: &str| rest::NullHclString {
        value: text.to_owned(),
        valid: true,
    };
    let default_value = if parameter.required {
        rest::NullHclString::default()
    } else {
        known(&parameter.default_value)
    };
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let has_rule = !parameter.validation_regex.is_empty()
        || !parameter.validation_monotonic.is_empty()
        || parameter.validation_min.is_some()
        || parameter.validation_max.is_some();
    let validations = has_rule.then(|| rest::PreviewValidation {
        validation_error: parameter.validation_error.clone(),
        validation_regex: some(&parameter.validation_regex),
        validation_min: parameter.validation_min,
        validation_max: parameter.validation_max,
        validation_monotonic: some(&parameter.validation_monotonic),
    });
    rest::PreviewParameter {
        name: parameter.name.clone(),
        display_name: parameter.display_name.clone(),
        description: parameter.description.clone(),
        parameter_type: parameter.parameter_type.clone(),
        form_type: parameter.form_type.clone(),
        styling: rest::ParameterStyling::default(),
        mutable: parameter.mutable,
        value: value.map_or_else(|| default_value.clone(), known),
        default_value,
        icon: parameter.icon.clone(),
        options: parameter
            .options
            .iter()
            .map(|option| rest::PreviewOption {
                name: option.name.clone(),
                // Forms get these from the list of parameters.
                description: String::new(),
                value: known(&option.value),
                icon: String::new(),
            })
            .collect(),
        validations: validations.into_iter().collect(),
        required: parameter.required,
        order: order as i64,
        ephemeral: parameter.ephemeral,
        diagnostics,
    }
}

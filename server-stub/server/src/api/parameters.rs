//! Values of template parameters: what is allowed, and what a form shows.

use std::collections::BTreeMap;

use adit_rest::{
    BuildParameter, Diagnostic, DiagnosticExtra, DynamicParametersRequest,
    DynamicParametersResponse, TemplateVersionParameter, given,
};
use adit_store::model::TemplateVersion;
use axum::Router;
use axum::extract::State;
use axum::routing::post;

use crate::app::App;
use crate::auth::Actor;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Id, Json};

pub(super) fn routes() -> Router<App> {
    Router::new().route(
        "/templateversions/{version}/dynamic-parameters/evaluate",
        post(evaluate),
    )
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    summary: String,
    detail: String,
    code: &'static str,
}

impl Problem {
    fn new(summary: &str, detail: String) -> Self {
        Self {
            summary: summary.to_owned(),
            detail,
            code: "",
        }
    }

    fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: "error".to_owned(),
            summary: self.summary.clone(),
            detail: self.detail.clone(),
            extra: DiagnosticExtra {
                code: self.code.to_owned(),
            },
        }
    }
}

const REFUSED: &str = "Invalid parameter value according to 'validation' block";

/// Checks one value.
pub(crate) fn check(parameter: &TemplateVersionParameter, value: &str) -> Option<Problem> {
    match parameter.parameter_type.as_str() {
        "number" => check_number(parameter, value),
        "bool" if !matches!(value, "true" | "false") => Some(Problem::new(
            "Parameter value is not of type \"bool\"",
            format!("{value:?} is not a bool"),
        )),
        "list(string)" if serde_json::from_str::<Vec<String>>(value).is_err() => {
            Some(Problem::new(
                "Parameter value is not of type \"list(string)\"",
                format!("{value:?} is not a list of strings"),
            ))
        }
        _ => check_text(parameter, value),
    }
}

fn check_number(parameter: &TemplateVersionParameter, value: &str) -> Option<Problem> {
    let Ok(number) = value.parse::<i64>() else {
        return Some(Problem::new(
            "Parameter value is not of type \"number\"",
            format!("{value:?} is not a number"),
        ));
    };
    let out_of_range = parameter.validation_min.is_some_and(|min| number < min)
        || parameter.validation_max.is_some_and(|max| number > max);
    if !out_of_range {
        return None;
    }
    let default = match (parameter.validation_min, parameter.validation_max) {
        (Some(min), Some(max)) => format!("value {number} is not between {min} and {max}"),
        (Some(min), None) => format!("value {number} is less than the minimum {min}"),
        (None, max) => format!(
            "value {number} is more than the maximum {}",
            max.unwrap_or(0)
        ),
    };
    let text = &parameter.validation_error;
    Some(Problem::new(
        REFUSED,
        if text.is_empty() {
            default
        } else {
            text.clone()
        },
    ))
}

fn check_text(parameter: &TemplateVersionParameter, value: &str) -> Option<Problem> {
    let listed = parameter.options.iter().any(|option| option.value == value);
    if !parameter.options.is_empty() && !listed {
        return Some(Problem::new(
            "Value must be a valid option",
            format!("the value {value:?} must be defined as one of options"),
        ));
    }
    let pattern = &parameter.validation_regex;
    if pattern.is_empty() || crate::pattern::matches(pattern, value) {
        return None;
    }
    let detail = format!(
        "{} (value {value:?} does not match {pattern:?})",
        parameter.validation_error
    );
    Some(Problem::new(REFUSED, detail))
}

fn monotonic(
    parameter: &TemplateVersionParameter,
    old: Option<&str>,
    value: &str,
) -> Option<Problem> {
    let old = old?.parse::<i64>().ok()?;
    let new = value.parse::<i64>().ok()?;
    let wrong = match parameter.validation_monotonic.as_str() {
        "increasing" => new < old,
        "decreasing" => new > old,
        _ => false,
    };
    wrong.then(|| {
        Problem::new(
            REFUSED,
            format!(
                "value {new} must be equal or {} than previous value: {old}",
                if new < old { "greater" } else { "lower" }
            ),
        )
    })
}

/// The values of a new build: those of the request, else (unless ephemeral)
/// those of the last build, else the defaults.
///
/// # Errors
/// A 400 that names every refused parameter.
pub(crate) fn resolve(
    version: &TemplateVersion,
    requested: &[BuildParameter],
    last: &[BuildParameter],
) -> ApiResult<Vec<BuildParameter>> {
    let find = |list: &[BuildParameter], name: &str| {
        list.iter()
            .find(|item| item.name == name)
            .map(|item| item.value.clone())
    };
    let mut refused: Option<ApiError> = None;
    let mut refuse = |name: &str, problem: &Problem| {
        let error = refused
            .take()
            .unwrap_or_else(|| ApiError::bad_request("Unable to validate parameters"));
        refused = Some(error.field(name, format!("{}; {}", problem.summary, problem.detail)));
    };
    let mut values = Vec::new();
    for parameter in &version.spec.parameters {
        let name = parameter.name.as_str();
        let old = find(last, name).filter(|_| !parameter.ephemeral);
        let asked = find(requested, name);
        if let (Some(asked), Some(old)) = (&asked, &old)
            && !parameter.mutable
            && asked != old
        {
            let detail = format!(
                "Parameter {name:?} is not mutable, so it can't be updated after creating a workspace."
            );
            refuse(name, &Problem::new("Parameter is immutable", detail));
            continue;
        }
        let value = asked.or_else(|| old.clone());
        let Some(value) =
            value.or_else(|| (!parameter.required).then(|| parameter.default_value.clone()))
        else {
            let mut problem = Problem::new(
                "Required parameter not provided",
                format!("parameter value {name:?} is required"),
            );
            problem.code = "required";
            refuse(name, &problem);
            continue;
        };
        let problem =
            check(parameter, &value).or_else(|| monotonic(parameter, old.as_deref(), &value));
        if let Some(problem) = problem {
            refuse(name, &problem);
            continue;
        }
        values.push(BuildParameter {
            name: name.to_owned(),
            value,
        });
    }
    match refused {
        Some(error) => Err(error),
        None => Ok(values),
    }
}

/// A form's state for given inputs.
fn form(
    version: &TemplateVersion,
    inputs: &BTreeMap<String, String>,
) -> Vec<adit_rest::PreviewParameter> {
    let mut all = Vec::new();
    for (index, parameter) in version.spec.parameters.iter().enumerate() {
        let input = inputs.get(&parameter.name).map(String::as_str);
        let mut diagnostics = Vec::new();
        let effective = input.or((!parameter.required).then_some(&parameter.default_value));
        if input.is_none() && parameter.required {
            diagnostics.push(Diagnostic {
                severity: "error".to_owned(),
                summary: "Required parameter not provided".to_owned(),
                detail: "parameter value is null".to_owned(),
                extra: DiagnosticExtra {
                    code: "required".to_owned(),
                },
            });
        }
        if let Some(problem) = effective.and_then(|value| check(parameter, value)) {
            diagnostics.push(problem.diagnostic());
        }
        all.push(convert::preview(index + 1, parameter, input, diagnostics));
    }
    all
}

async fn evaluate(
    State(app): State<App>,
    _: Actor,
    Id(id): Id,
    Body(request): Body<DynamicParametersRequest>,
) -> ApiResult<Json<DynamicParametersResponse>> {
    let version = app.store.version(id).await?;
    let owner = match given(request.owner_id) {
        Some(owner) => app.store.user(owner).await.ok(),
        None => None,
    };
    if owner.is_none() {
        return Ok(Json(DynamicParametersResponse {
            id: 0,
            diagnostics: vec![Diagnostic {
                severity: "error".to_owned(),
                summary: "Failed to fetch workspace owner".to_owned(),
                detail: "Please check your permissions or the user may not exist.".to_owned(),
                extra: DiagnosticExtra {
                    code: "owner_not_found".to_owned(),
                },
            }],
            parameters: None,
        }));
    }
    Ok(Json(DynamicParametersResponse {
        id: 0,
        diagnostics: Vec::new(),
        parameters: Some(form(&version, &request.inputs)),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use adit_store::spec::VersionSpec;

    fn number(name: &str) -> TemplateVersionParameter {
        TemplateVersionParameter {
            name: name.into(),
            parameter_type: "number".into(),
            default_value: "2".into(),
            validation_min: Some(1),
            validation_max: Some(8),
            validation_monotonic: "increasing".into(),
            mutable: true,
            ..TemplateVersionParameter::default()
        }
    }

    fn value(name: &str, value: &str) -> BuildParameter {
        BuildParameter {
            name: name.into(),
            value: value.into(),
        }
    }

    fn version(parameters: Vec<TemplateVersionParameter>) -> TemplateVersion {
        TemplateVersion {
            spec: VersionSpec {
                parameters,
                ..VersionSpec::default()
            },
            ..TemplateVersion::default()
        }
    }

    #[test]
    fn the_last_value_stays_and_may_only_grow() {
        let version = version(vec![number("cpus")]);
        let first = resolve(&version, &[], &[]).unwrap();
        assert_eq!(first, [value("cpus", "2")]);
        let grown = resolve(&version, &[value("cpus", "4")], &first).unwrap();
        assert_eq!(resolve(&version, &[], &grown).unwrap(), grown);
        assert!(resolve(&version, &[value("cpus", "3")], &grown).is_err());
        assert!(resolve(&version, &[value("cpus", "9")], &grown).is_err());
        assert!(resolve(&version, &[value("cpus", "x")], &grown).is_err());
    }

    #[test]
    fn ephemeral_values_are_forgotten() {
        let mut once = number("once");
        once.ephemeral = true;
        once.validation_monotonic.clear();
        let version = version(vec![once]);
        let used = resolve(&version, &[value("once", "5")], &[]).unwrap();
        assert_eq!(resolve(&version, &[], &used).unwrap(), [value("once", "2")]);
    }

    #[test]
    fn immutable_values_cannot_change() {
        let mut fixed = number("fixed");
        fixed.mutable = false;
        let version = version(vec![fixed]);
        let last = [value("fixed", "3")];
        assert!(resolve(&version, &[value("fixed", "4")], &last).is_err());
        assert!(resolve(&version, &[value("fixed", "3")], &last).is_ok());
    }
}

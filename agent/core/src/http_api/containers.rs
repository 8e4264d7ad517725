//! Dev containers: not offered by this agent, and said so in the words
//! clients understand.

use http::StatusCode;

use super::Reply;
use super::reply::{api_error, not_found};
use crate::manifest::Manifest;

pub(super) fn answer(rest: &str, manifest: Option<&Manifest>) -> Reply {
    if !rest.is_empty() {
        return not_found();
    }
    if manifest.is_some_and(|m| m.parent_id.is_some()) {
        return api_error(
            StatusCode::FORBIDDEN,
            "Dev Container feature not supported.",
            Some(
                "Dev Container integration inside other Dev Containers is explicitly not supported.",
            ),
        );
    }
    api_error(
        StatusCode::FORBIDDEN,
        "Dev Container feature not enabled.",
        Some("To enable this feature, set CODER_AGENT_DEVCONTAINERS_ENABLE=true in your template."),
    )
}

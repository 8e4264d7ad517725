//! Agents that would authenticate by their cloud's identity service.

use axum::Router;
use axum::routing::post;
use http::StatusCode;

use crate::app::App;
use crate::error::ApiError;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaceagents/aws-instance-identity", post(aws))
        .route("/workspaceagents/azure-instance-identity", post(azure))
        .route("/workspaceagents/google-instance-identity", post(google))
}

/// No cloud is configured.
fn no_identity(cloud: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        format!("Invalid {cloud} identity."),
    )
    .detail("instance identity is not configured")
}

async fn aws() -> ApiError {
    no_identity("AWS")
}

async fn azure() -> ApiError {
    no_identity("Azure")
}

async fn google() -> ApiError {
    no_identity("GCP")
}

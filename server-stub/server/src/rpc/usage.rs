//! What follows from somebody using a workspace.

use adit_rest::{Time, Transition};
use adit_store::{WorkspaceUpdate, model::AgentContext};

use crate::{app::App, pubsub::WorkspaceEventKind};

/// How much of its extension a deadline must have lost before it is moved
/// again: 1 in this many.
const BUMP_AFTER: i64 = 20;

/// Notes the use of a workspace and moves its automatic stop.
pub(crate) async fn used(app: &App, context: &AgentContext) {
    let now = Time::now();
    let workspace = &context.workspace;
    if let Err(error) = app
        .store
        .update_workspace(workspace.id, &WorkspaceUpdate::LastUsed(now))
        .await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "could not note the use of a workspace"
        );
    }
    if let Some(deadline) = context
        .build
        .deadline
        .filter(|_| context.build.transition == Transition::Start)
    {
        let bump_ms = match app.store.template(workspace.template_id).await {
            Ok(template) => template.options.activity_bump_ms,
            Err(_) => 0,
        };
        if let Some(later) = bumped(deadline, bump_ms, now)
            && let Err(error) = app.store.set_deadline(context.build.id, Some(later)).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not move an automatic stop"
            );
        }
    }
    app.workspace_changed(workspace, WorkspaceEventKind::Stats);
}

/// The new time of an automatic stop, if it is to be moved.
fn bumped(deadline: Time, bump_ms: i64, now: Time) -> Option<Time> {
    let bump = bump_ms.checked_mul(1000).filter(|bump| *bump > 0)?;
    let due = deadline.plus_micros(-(bump - bump / BUMP_AFTER)) < now;
    let later = now.plus_micros(bump);
    (due && later > deadline).then_some(later)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn minutes(minutes: i64) -> Time {
        Time::from_micros(minutes * 60_000_000)
    }

    #[test]
    fn a_stop_moves_once_a_twentieth_is_gone() {
        let now = minutes(1000);
        assert_eq!(bumped(minutes(1060), HOUR_MS, now), None);
        assert_eq!(bumped(minutes(1058), HOUR_MS, now), None);
        assert_eq!(bumped(minutes(1056), HOUR_MS, now), Some(minutes(1060)));
        assert_eq!(bumped(minutes(2000), HOUR_MS, now), None);
        assert_eq!(bumped(minutes(1001), 0, now), None);
    }
}

//! Agents below an agent, as for containers in a workspace.

use std::collections::BTreeSet;

use adit_messages::agent as pb;
use adit_rest::{DisplayApp, Healthcheck, OpenIn, SharingLevel};
use adit_store::{
    model::Agent,
    spec::{AgentSpec, AppSpec},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use pb::create_sub_agent_request as request;

type AppError = pb::create_sub_agent_response::AppCreationError;

/// Apps with their place in the request.
type Apps = Vec<(usize, AppSpec)>;

/// What the request asks for: the agent, its apps, and what is wrong with the
/// others.
pub(crate) fn spec(
    new: &pb::CreateSubAgentRequest,
    parent: &Agent,
) -> Result<(AgentSpec, Apps, Vec<AppError>), String> {
    if new.name.is_empty() {
        return Err("field: name detail: agent name cannot be empty".into());
    }
    if !is_slug(&new.name.to_ascii_lowercase()) {
        return Err(format!(
            "field: name detail: agent name {:?} does not match the allowed form",
            new.name
        ));
    }
    let display_apps = new
        .display_apps
        .iter()
        .map(|app| match request::DisplayApp::try_from(*app) {
            Ok(request::DisplayApp::Vscode) => Ok(DisplayApp::Vscode),
            Ok(request::DisplayApp::VscodeInsiders) => Ok(DisplayApp::VscodeInsiders),
            Ok(request::DisplayApp::WebTerminal) => Ok(DisplayApp::WebTerminal),
            Ok(request::DisplayApp::SshHelper) => Ok(DisplayApp::SshHelper),
            Ok(request::DisplayApp::PortForwardingHelper) => Ok(DisplayApp::PortForwardingHelper),
            Err(_) => Err(format!("unexpected display app: {app}")),
        })
        .collect::<Result<_, _>>()?;
    let agent = AgentSpec {
        name: new.name.clone(),
        operating_system: new.operating_system.clone(),
        architecture: new.architecture.clone(),
        directory: new.directory.clone(),
        connection_timeout_seconds: parent.connection_timeout_seconds,
        troubleshooting_url: parent.troubleshooting_url.clone(),
        display_apps,
        ..AgentSpec::default()
    };
    let mut apps = Vec::new();
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, app) in new.apps.iter().enumerate() {
        if app.slug.is_empty() {
            errors.push(app_error(index, Some("slug"), "must not be empty"));
        } else if !is_slug(&app.slug) {
            errors.push(app_error(
                index,
                Some("slug"),
                &format!("{:?} does not match the allowed form", app.slug),
            ));
        } else if !seen.insert(&app.slug) {
            errors.push(app_error(
                index,
                Some("slug"),
                &format!("{:?} is already in use", app.slug),
            ));
        } else {
            apps.push((index, app_spec(&new.name, app)));
        }
    }
    Ok((agent, apps, errors))
}

/// The agent as its parent learns of it.
pub(crate) fn message(agent: &Agent) -> pb::SubAgent {
    pb::SubAgent {
        name: agent.name.clone(),
        id: Bytes::copy_from_slice(agent.id.as_bytes()),
        auth_token: Bytes::copy_from_slice(agent.auth_token.as_bytes()),
    }
}

/// Says that an app was not made.
pub(crate) fn app_error(index: usize, field: Option<&str>, error: &str) -> AppError {
    AppError {
        index: i32::try_from(index).unwrap_or(i32::MAX),
        field: field.map(str::to_owned),
        error: error.to_owned(),
    }
}

fn app_spec(agent: &str, app: &request::App) -> AppSpec {
    let share = app
        .share
        .and_then(|share| request::app::SharingLevel::try_from(share).ok());
    let open_in = app
        .open_in
        .and_then(|open_in| request::app::OpenIn::try_from(open_in).ok());
    AppSpec {
        slug: unique_slug(agent, &app.slug),
        display_name: app.display_name.clone().unwrap_or_default(),
        icon: app.icon.clone().unwrap_or_default(),
        url: app.url.clone().unwrap_or_default(),
        command: app.command.clone().unwrap_or_default(),
        external: app.external.unwrap_or_default(),
        subdomain: app.subdomain.unwrap_or_default(),
        sharing_level: match share {
            Some(request::app::SharingLevel::Authenticated) => SharingLevel::Authenticated,
            Some(request::app::SharingLevel::Public) => SharingLevel::Public,
            Some(request::app::SharingLevel::Organization) => SharingLevel::Organization,
            Some(request::app::SharingLevel::Owner) | None => SharingLevel::Owner,
        },
        healthcheck: app
            .healthcheck
            .as_ref()
            .map(|check| Healthcheck {
                url: check.url.clone(),
                interval: check.interval.into(),
                threshold: check.threshold.into(),
            })
            .unwrap_or_default(),
        group: app.group.clone().unwrap_or_default(),
        hidden: app.hidden.unwrap_or_default(),
        open_in: match open_in {
            Some(request::app::OpenIn::Tab) => OpenIn::Tab,
            Some(request::app::OpenIn::SlimWindow) | None => OpenIn::SlimWindow,
        },
        tooltip: String::new(),
    }
}

/// Apps of different agents of a workspace share one name space, so each gets
/// a prefix made from its agent's name.
fn unique_slug(agent: &str, slug: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let hash = Sha256::digest(format!("{agent}/{slug}"));
    let bits = hash
        .iter()
        .take(5)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let prefix: String = (0..8)
        .rev()
        .map(|place| char::from(ALPHABET[(bits >> (place * 5) & 31) as usize]))
        .collect();
    format!("{prefix}-{slug}")
}

/// Whether the text is made of lower-case letters and digits, with single
/// hyphens between them.
fn is_slug(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split('-')
        .all(|part| !part.is_empty() && part.chars().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slugs_are_checked() {
        let parent = Agent::default();
        let new = |name: &str| pb::CreateSubAgentRequest {
            name: name.into(),
            ..Default::default()
        };
        assert_eq!(
            spec(&new(""), &parent).unwrap_err(),
            "field: name detail: agent name cannot be empty"
        );
        for bad in ["-a", "a-", "a--b", "a_b", "ä"] {
            assert!(spec(&new(bad), &parent).is_err(), "{bad}");
        }
        assert!(spec(&new("My-Container-1"), &parent).is_ok());
    }

    #[test]
    fn a_bad_app_does_not_spoil_the_others() {
        let app = |slug: &str| request::App {
            slug: slug.into(),
            ..Default::default()
        };
        let new = pb::CreateSubAgentRequest {
            name: "dev".into(),
            apps: vec![app("web"), app(""), app("web"), app("b_c"), app("db")],
            ..Default::default()
        };
        let (_, apps, errors) = spec(&new, &Agent::default()).unwrap();
        assert_eq!(
            apps.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [0, 4]
        );
        assert_eq!(
            errors.iter().map(|error| error.index).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let slug = &apps[0].1.slug;
        assert!(slug.ends_with("-web") && slug.len() == 12, "{slug}");
    }
}

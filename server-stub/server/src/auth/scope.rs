//! What a key may be used for: its scopes say which kinds of requests, its
//! allow list on which objects. Both only take away from what its user may do.
//!
//! A scope is `resource:action`, with `*` for all actions, or the name of a set
//! of them. A request that is not known here is for keys without limits.

use adit_store::model::ApiKey;
use http::Method;
use uuid::Uuid;

use super::Actor;
use crate::error::{ApiError, ApiResult};

/// Everything.
pub(crate) const ALL: &str = "coder:all";
/// Applications in workspaces, and nothing of the API.
pub(crate) const APPLICATION_CONNECT: &str = "coder:application_connect";

/// Resources with the actions a scope can name.
const RESOURCES: [(&str, &[&str]); 8] = [
    (
        "workspace",
        &[
            "create",
            "read",
            "update",
            "delete",
            "start",
            "stop",
            "ssh",
            "application_connect",
        ],
    ),
    ("template", &["create", "read", "update", "delete", "use"]),
    (
        "user",
        &[
            "create",
            "read",
            "update",
            "delete",
            "read_personal",
            "update_personal",
        ],
    ),
    ("api_key", &["create", "read", "update", "delete"]),
    ("organization", &["create", "read", "update", "delete"]),
    (
        "organization_member",
        &["create", "read", "update", "delete"],
    ),
    ("deployment_config", &["read", "update"]),
    ("deployment_stats", &["read"]),
];

/// Sets of scopes by name.
const SETS: [(&str, &[&str]); 7] = [
    (APPLICATION_CONNECT, &[]),
    (
        "coder:workspaces.create",
        &[
            "template:read",
            "template:use",
            "workspace:create",
            "workspace:update",
            "workspace:read",
        ],
    ),
    (
        "coder:workspaces.operate",
        &[
            "template:read",
            "workspace:read",
            "workspace:update",
            "workspace:start",
            "workspace:stop",
        ],
    ),
    (
        "coder:workspaces.delete",
        &["template:read", "workspace:read", "workspace:delete"],
    ),
    (
        "coder:workspaces.access",
        &[
            "template:read",
            "organization_member:read",
            "workspace:read",
            "workspace:ssh",
            "workspace:application_connect",
        ],
    ),
    (
        "coder:templates.author",
        &[
            "template:read",
            "template:create",
            "template:update",
            "template:delete",
        ],
    ),
    (
        "coder:apikeys.manage_self",
        &[
            "api_key:read",
            "api_key:create",
            "api_key:update",
            "api_key:delete",
        ],
    ),
];

/// What a scope stands for: itself, or the members of a set. `None` for a
/// scope that is not known.
fn members(scope: &str) -> Option<Vec<&str>> {
    if let Some((_, members)) = SETS.iter().find(|(name, _)| *name == scope) {
        return Some(members.to_vec());
    }
    let (resource, action) = scope.split_once(':')?;
    let (_, actions) = RESOURCES.iter().find(|(name, _)| *name == resource)?;
    (action == "*" || actions.contains(&action)).then(|| vec![scope])
}

/// Whether a key can have this scope.
pub(crate) fn is_known(scope: &str) -> bool {
    scope == ALL || members(scope).is_some()
}

/// Whether a key can have this entry in its allow list: `type:id`, each of
/// which may be `*`.
pub(crate) fn is_entry(entry: &str) -> bool {
    entry.split_once(':').is_some_and(|(kind, id)| {
        let known = kind == "*" || RESOURCES.iter().any(|(name, _)| *name == kind);
        known && (id == "*" || (kind != "*" && Uuid::try_parse(id).is_ok()))
    })
}

/// Whether a list of scopes covers one permission, `resource:action`.
fn covers(scopes: &[String], resource: &str, action: &str) -> bool {
    scopes.iter().any(|scope| {
        scope == ALL
            || members(scope).is_some_and(|members| {
                members
                    .iter()
                    .filter_map(|member| member.split_once(':'))
                    .any(|(r, a)| r == resource && (a == "*" || a == action))
            })
    })
}

/// On which objects of a kind a key may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objects {
    /// On all.
    All,
    /// On these only.
    Only(Vec<Uuid>),
}

fn objects(key: &ApiKey, resource: &str) -> Objects {
    let mut only = Vec::new();
    for entry in &key.allow_list {
        match entry.split_once(':') {
            Some((kind, "*")) if kind == "*" || kind == resource => return Objects::All,
            Some((kind, id)) if kind == resource => only.extend(Uuid::try_parse(id).ok()),
            _ => {}
        }
    }
    Objects::Only(only)
}

impl Actor {
    /// Whether the key has no limits.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.key.scopes.iter().any(|scope| scope == ALL)
            && self.key.allow_list.iter().any(|entry| entry == "*:*")
    }

    /// Refuses keys whose scopes do not cover any of the actions.
    pub(crate) fn require_scope(&self, resource: &str, actions: &[&str]) -> ApiResult<()> {
        if actions
            .iter()
            .any(|action| covers(&self.key.scopes, resource, action))
        {
            Ok(())
        } else {
            Err(ApiError::forbidden())
        }
    }

    /// On which workspaces the key may be used.
    pub(crate) fn workspaces(&self) -> Objects {
        objects(&self.key, "workspace")
    }

    /// Whether the key may hand out another with these limits.
    pub(crate) fn may_grant(&self, key: &ApiKey) -> bool {
        let scopes = key.scopes.iter().all(|scope| {
            self.key.scopes.iter().any(|own| own == ALL || own == scope)
                || members(scope).is_some_and(|members| {
                    members
                        .iter()
                        .filter_map(|member| member.split_once(':'))
                        .all(|(resource, action)| covers(&self.key.scopes, resource, action))
                })
        });
        let own = &self.key.allow_list;
        let objects = key
            .allow_list
            .iter()
            .all(|entry| own.contains(entry) || own.iter().any(|own| own == "*:*"));
        scopes && objects
    }

    /// Refuses a request the key is not for. Which workspaces it may be used
    /// on is decided where they are looked up.
    pub(crate) fn check_request(&self, method: &Method, path: &str) -> ApiResult<()> {
        if self.is_unlimited() {
            return Ok(());
        }
        let path = path.strip_prefix("/api/v2").unwrap_or(path);
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let need = need(method, &segments).ok_or_else(ApiError::forbidden)?;
        let Need::One { resource, actions } = need else {
            return Ok(());
        };
        self.require_scope(resource, actions)?;
        let named = match objects(&self.key, resource) {
            Objects::All => return Ok(()),
            Objects::Only(ids) if ids.is_empty() => return Err(ApiError::forbidden()),
            // Concerns no single workspace.
            Objects::Only(_) if segments == ["tailnet"] || actions == ["create"] => false,
            Objects::Only(_) if resource == "workspace" => true,
            Objects::Only(ids) => segments
                .iter()
                .any(|part| Uuid::try_parse(part).is_ok_and(|id| ids.contains(&id))),
        };
        if named {
            Ok(())
        } else {
            Err(ApiError::forbidden())
        }
    }
}

/// What a request takes.
enum Need {
    /// Nothing: it tells nobody's data.
    Nothing,
    /// One of these actions.
    One {
        resource: &'static str,
        actions: &'static [&'static str],
    },
}

/// What a request takes; `None` if only keys without limits will do.
fn need(method: &Method, path: &[&str]) -> Option<Need> {
    let one = |resource, actions| Some(Need::One { resource, actions });
    // Create, read, update or delete.
    let verb: &'static [&'static str] = match *method {
        Method::GET | Method::HEAD => &["read"],
        Method::POST => &["create"],
        Method::DELETE => &["delete"],
        _ => &["update"],
    };
    let reads = verb == ["read"];
    match path {
        ["users", "logout"] | ["authcheck"] => Some(Need::Nothing),
        ["experiments", ..]
        | ["regions"]
        | ["updatecheck"]
        | ["appearance"]
        | ["deployment", "ssh"]
        | ["applications", "host"]
            if reads =>
        {
            Some(Need::Nothing)
        }
        ["users"] => one("user", verb),
        ["users", _] if verb == ["delete"] => one("user", verb),
        ["users", _, "status" | "roles", ..] if !reads => one("user", &["update"]),
        ["users", _, "keys", ..] => one("api_key", verb),
        ["users", _, "workspace", ..] if reads => one("workspace", verb),
        ["users", _, "workspaces"] | ["organizations", _, "members", _, "workspaces"] if !reads => {
            one("workspace", &["create"])
        }
        ["users", _, "gitsshkey"] if reads => one("user", &["read_personal"]),
        ["users", _, ..] if reads => one("user", &["read", "read_personal"]),
        ["users", _, "profile" | "password" | "gitsshkey"] => one("user", &["update_personal"]),
        ["organizations", _, "members", ..] if reads => one("organization_member", verb),
        ["organizations", _, "templates", ..] if reads => one("template", verb),
        ["organizations", ..] if reads => one("organization", verb),
        ["workspaces", _, "builds"] if !reads => {
            // Which of them is decided by the build.
            one("workspace", &["start", "stop", "delete"])
        }
        ["workspaces", _, "usage"] => one("workspace", &["ssh", "application_connect", "update"]),
        ["workspaces", ..] | ["workspacebuilds", ..] => {
            one("workspace", if reads { verb } else { &["update"] })
        }
        ["tailnet"]
        | ["workspaceagents", "connection"]
        | ["workspaceagents", _, "connection" | "coordinate"] => one("workspace", &["ssh"]),
        ["workspaceagents", _, ..] if reads => one("workspace", verb),
        ["templates", ..] if reads || verb == ["delete"] => one("template", verb),
        // Previews; they change nothing.
        ["templateversions", _, "dry-run" | "dynamic-parameters", ..] => one("template", &["read"]),
        ["templateversions", ..] if reads => one("template", verb),
        ["templateversions", ..] => one("template", &["update"]),
        ["deployment", "config"] | ["debug", ..] if reads => one("deployment_config", verb),
        ["deployment", "stats"] | ["insights", ..] if reads => one("deployment_stats", verb),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use adit_rest::LoginType;
    use adit_store::model::User;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn actor(scopes: &[&str], allow: &[&str]) -> Actor {
        let mut key = super::super::new_key(Uuid::nil(), LoginType::Token, 60, "n").key;
        key.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        key.allow_list = allow.iter().map(|entry| (*entry).to_owned()).collect();
        Actor {
            user: User::default(),
            key,
        }
    }

    fn may(actor: &Actor, method: &Method, path: &str) -> bool {
        actor.check_request(method, path).is_ok()
    }

    #[test]
    fn a_key_without_limits_may_ask_for_anything() {
        let all = actor(&[ALL], &["*:*"]);
        assert!(all.is_unlimited());
        assert!(may(&all, &Method::POST, "/api/v2/users/me/keys"));
        assert!(may(&all, &Method::GET, "/api/v2/of/tomorrow"));
    }

    #[test]
    fn scopes_open_what_they_name_and_nothing_else() {
        let reader = actor(&["workspace:read"], &["*:*"]);
        assert!(may(&reader, &Method::GET, "/api/v2/workspaces"));
        assert!(may(&reader, &Method::GET, "/users/me/workspace/dev"));
        assert!(may(&reader, &Method::POST, "/authcheck"));
        for (method, path) in [
            (Method::GET, "/users/me"),
            (Method::GET, "/templates"),
            (Method::GET, "/of/tomorrow"),
            (Method::GET, "/tailnet"),
            (Method::GET, "/workspaceagents/x/coordinate"),
            (Method::PUT, "/workspaces/x/ttl"),
            (Method::POST, "/workspaces/x/builds"),
            (Method::POST, "/users/me/workspaces"),
            (Method::POST, "/users/me/keys"),
        ] {
            assert!(!may(&reader, &method, path), "{method} {path}");
        }
        let access = actor(&["coder:workspaces.access"], &["*:*"]);
        assert!(may(&access, &Method::GET, "/workspaceagents/x/coordinate"));
        assert!(!may(&access, &Method::POST, "/workspaces/x/builds"));
        let any = actor(&["workspace:*"], &["*:*"]);
        assert!(may(&any, &Method::POST, "/workspaces/x/builds"));
        assert!(any.require_scope("workspace", &["delete"]).is_ok());
        let apps = actor(&[APPLICATION_CONNECT], &["*:*"]);
        assert!(!may(&apps, &Method::GET, "/workspaces"));
    }

    #[test]
    fn an_allow_list_names_objects() {
        let entry = format!("workspace:{ID}");
        let one = actor(&[ALL], &[&entry, "template:*"]);
        assert_eq!(one.workspaces(), Objects::Only(vec![ID]));
        assert!(may(&one, &Method::GET, "/workspaces"));
        assert!(may(&one, &Method::GET, "/templates"));
        assert!(!may(&one, &Method::GET, "/users/me"));
        assert!(!may(&one, &Method::POST, "/users/me/workspaces"));
        assert!(!may(&one, &Method::GET, "/tailnet"));
        let template = actor(&[ALL], &[&format!("template:{ID}")]);
        assert!(may(&template, &Method::GET, &format!("/templates/{ID}")));
        assert!(!may(&template, &Method::GET, "/templates"));
    }

    #[test]
    fn a_key_hands_out_no_more_than_it_has() {
        let own = actor(&["workspace:*", "api_key:create"], &["workspace:*"]);
        let grants = |scopes: &[&str], allow: &[&str]| own.may_grant(&actor(scopes, allow).key);
        assert!(grants(&["workspace:read"], &["workspace:*"]));
        assert!(!grants(&["workspace:read"], &["*:*"]));
        assert!(!grants(&["template:read"], &["workspace:*"]));
        assert!(!grants(&["coder:workspaces.access"], &["workspace:*"]));
        assert!(!grants(&[ALL], &["workspace:*"]));
    }

    #[test]
    fn only_what_is_known_is_taken() {
        for scope in [ALL, "workspace:ssh", "user:*", "coder:workspaces.access"] {
            assert!(is_known(scope), "{scope}");
        }
        for scope in ["", "all", "workspace", "workspace:fly", "x:read", "*:*"] {
            assert!(!is_known(scope), "{scope}");
        }
        assert!(is_entry("*:*") && is_entry("workspace:*"));
        assert!(is_entry(&format!("workspace:{ID}")));
        for entry in ["", "*", "workspace", "workspace:x", "x:*"] {
            assert!(!is_entry(entry), "{entry}");
        }
    }
}

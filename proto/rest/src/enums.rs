//! The string enums of the API.
//!
//! Each type is `Copy`, has `as_str`, `parse` and `Display`, and decodes an
//! unknown string to `Unknown` instead of failing.

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )+
            /// A value this version does not know.
            #[default]
            Unknown,
        }

        impl $name {
            /// Every known value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown => "unknown",
                }
            }

            /// The value of a text on the wire; `None` if unknown.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Ok(Self::parse(&text).unwrap_or_default())
            }
        }
    };
}

wire_enum! {
    /// What a build does to its workspace.
    Transition { Start = "start", Stop = "stop", Delete = "delete" }
}
wire_enum! {
    /// State of a provisioner job.
    JobStatus {
        Pending = "pending", Running = "running", Succeeded = "succeeded",
        Canceling = "canceling", Canceled = "canceled", Failed = "failed",
    }
}
wire_enum! {
    /// What a provisioner job works on.
    JobType {
        TemplateVersionImport = "template_version_import",
        WorkspaceBuild = "workspace_build",
        TemplateVersionDryRun = "template_version_dry_run",
    }
}
wire_enum! {
    /// State of a workspace build, derived from its job and transition.
    WorkspaceStatus {
        Pending = "pending", Starting = "starting", Running = "running",
        Stopping = "stopping", Stopped = "stopped", Failed = "failed",
        Canceling = "canceling", Canceled = "canceled", Deleting = "deleting",
        Deleted = "deleted",
    }
}
wire_enum! {
    /// Who or what asked for a build.
    BuildReason {
        Initiator = "initiator", Autostart = "autostart", Autostop = "autostop",
        Dormancy = "dormancy", Dashboard = "dashboard", Cli = "cli",
        SshConnection = "ssh_connection", VscodeConnection = "vscode_connection",
        JetbrainsConnection = "jetbrains_connection", TaskAutoPause = "task_auto_pause",
        TaskManualPause = "task_manual_pause", TaskResume = "task_resume",
    }
}
wire_enum! {
    /// Whether the agent's control connection is up.
    AgentStatus {
        Connecting = "connecting", Connected = "connected",
        Disconnected = "disconnected", Timeout = "timeout",
    }
}
wire_enum! {
    /// How far the agent's own start or shutdown has come.
    LifecycleState {
        Created = "created", Starting = "starting", StartTimeout = "start_timeout",
        StartError = "start_error", Ready = "ready", ShuttingDown = "shutting_down",
        ShutdownTimeout = "shutdown_timeout", ShutdownError = "shutdown_error", Off = "off",
    }
}
wire_enum! {
    /// Health of a workspace app.
    AppHealth {
        Disabled = "disabled", Initializing = "initializing",
        Healthy = "healthy", Unhealthy = "unhealthy",
    }
}
wire_enum! {
    /// Who may open a workspace app.
    SharingLevel {
        Owner = "owner", Authenticated = "authenticated",
        Organization = "organization", Public = "public",
    }
}
wire_enum! {
    /// Where the dashboard opens an app.
    OpenIn { SlimWindow = "slim-window", Tab = "tab" }
}
wire_enum! {
    /// What a task running in the workspace reports about itself.
    AppState {
        Working = "working", Idle = "idle", Complete = "complete", Failure = "failure",
    }
}
wire_enum! {
    /// Built-in ways to open a workspace.
    DisplayApp {
        Vscode = "vscode", VscodeInsiders = "vscode_insiders", WebTerminal = "web_terminal",
        SshHelper = "ssh_helper", PortForwardingHelper = "port_forwarding_helper",
    }
}
wire_enum! {
    /// Severity of a log line.
    LogLevel {
        Trace = "trace", Debug = "debug", Info = "info", Warn = "warn", Error = "error",
    }
}
wire_enum! {
    /// Which part of the provisioner wrote a line.
    LogSource { ProvisionerDaemon = "provisioner_daemon", Provisioner = "provisioner" }
}
wire_enum! {
    /// Account state.
    UserStatus { Active = "active", Dormant = "dormant", Suspended = "suspended" }
}
wire_enum! {
    /// How a user or key authenticates.
    LoginType {
        Password = "password", Github = "github", Oidc = "oidc",
        Token = "token", None = "none",
    }
}
wire_enum! {
    /// How a workspace follows new template versions.
    AutomaticUpdates { Always = "always", Never = "never" }
}
wire_enum! {
    /// Result of one agent script.
    ScriptStatus {
        Ok = "ok", ExitFailure = "exit_failure", TimedOut = "timed_out",
        PipesLeftOpen = "pipes_left_open",
    }
}

//! Commands run at a lower priority than the agent, so that a workspace that
//! is short of CPU or memory stays reachable.
//!
//! Where that is wanted, every command is started through this program's own
//! `agent-exec`, which changes its priorities and becomes the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The hidden command.
const NAME: &str = "agent-exec";
/// Present if priorities are to be changed, whatever its value.
const WANTED: &str = "CODER_PROC_PRIO_MGMT";
const OOM: &str = "CODER_PROC_OOM_SCORE";
const NICE: &str = "CODER_PROC_NICE_SCORE";
/// How much nicer commands are than the agent, and the limit.
const NICER: i32 = 5;
const NICEST: i32 = 19;
/// What the kernel kills first, almost.
const OOM_SCORE: i32 = 998;
const OOM_HIGHEST: i32 = 1_000;

/// Words in front of every command; none unless the environment asks for it.
pub(crate) fn wrapper(executable: &Path, var: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    if !cfg!(target_os = "linux") || var(WANTED).is_none() {
        return Vec::new();
    }
    let program = std::fs::canonicalize(executable).unwrap_or_else(|_| executable.to_owned());
    let mut words = vec![program.into_os_string(), NAME.into()];
    for (name, option) in [(OOM, "--coder-oom="), (NICE, "--coder-nice=")] {
        if let Some(number) = number(var(name)) {
            words.push(format!("{option}{number}").into());
        }
    }
    words.push("--".into());
    words
}

/// A variable that holds no number counts as unset.
fn number(text: Option<OsString>) -> Option<i32> {
    text?.to_str()?.trim().parse().ok()
}

/// What `agent-exec` is to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    oom: Option<i32>,
    nice: Option<i32>,
    command: Vec<OsString>,
}

/// Reads the words of this process: `None` if they are another command's. Its
/// command's own words are never looked at.
pub(crate) fn plan(words: &[OsString]) -> Option<Result<Plan, String>> {
    if words.get(1).is_none_or(|word| word != NAME) {
        return None;
    }
    let mut plan = Plan {
        oom: None,
        nice: None,
        command: Vec::new(),
    };
    let mut rest = words.get(2..).unwrap_or_default().iter();
    for word in rest.by_ref() {
        if word == "--" {
            break;
        }
        let option = word.to_str().and_then(|word| word.split_once('='));
        let slot = match option {
            Some(("--coder-oom", _)) => &mut plan.oom,
            Some(("--coder-nice", _)) => &mut plan.nice,
            _ => return Some(Err(format!("unknown option {}", word.display()))),
        };
        *slot = option.and_then(|(_, value)| value.parse().ok());
    }
    plan.command = rest.cloned().collect();
    Some(if plan.command.is_empty() {
        Err("no command given".to_owned())
    } else {
        Ok(plan)
    })
}

/// Becomes the command; returns only if that failed.
pub(crate) fn run(plan: Result<Plan, String>) -> ExitCode {
    let error = match plan {
        Ok(plan) => {
            lower(&plan);
            let [program, args @ ..] = &plan.command[..] else {
                return ExitCode::FAILURE;
            };
            let error = Command::new(program)
                .args(args)
                .env_remove(WANTED)
                .env_remove(OOM)
                .env_remove(NICE)
                .exec();
            format!("{}: {error}", program.display())
        }
        Err(error) => error,
    };
    eprintln!("coder-agent: {NAME}: {error}");
    ExitCode::FAILURE
}

/// A command with the wrong priority is better than none.
fn lower(plan: &Plan) {
    for (what, done) in [
        ("drop capabilities", drop_capabilities()),
        ("set the out-of-memory score", set_oom(plan.oom)),
        ("set the nice value", set_nice(plan.nice)),
    ] {
        if let Err(error) = done {
            eprintln!("coder-agent: cannot {what}: {error}");
        }
    }
}

/// The agent's binary may carry capabilities; commands have no use for them,
/// and scores could not be checked against the user's rights with them.
#[cfg(target_os = "linux")]
fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.effective = CapabilitySet::empty();
    set_capabilities(None, sets)?;
    Ok(())
}

/// A process that is not dumpable cannot write its own score.
#[cfg(target_os = "linux")]
fn set_oom(wanted: Option<i32>) -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    const FILE: &str = "/proc/self/oom_score_adj";
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let score = match wanted {
        Some(score) => Ok(score),
        None => std::fs::read_to_string(FILE)
            .map(|own| default_oom(own.trim().parse().unwrap_or_default())),
    };
    let written = score.and_then(|score| std::fs::write(FILE, score.to_string()));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    written
}

#[cfg(target_os = "linux")]
fn set_nice(wanted: Option<i32>) -> io::Result<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    let nice = match wanted {
        Some(nice) => nice,
        None => (getpriority_process(None)? + NICER).min(NICEST),
    };
    setpriority_process(None, nice)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn drop_capabilities() -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set_oom(_: Option<i32>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set_nice(_: Option<i32>) -> io::Result<()> {
    Ok(())
}

/// The score of commands below an agent with the score `own`.
fn default_oom(own: i32) -> i32 {
    match own {
        // A protected agent has ordinary commands.
        ..0 => 0,
        OOM_SCORE.. => OOM_HIGHEST,
        _ => OOM_SCORE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn commands_are_wrapped_only_on_demand() {
        let exe = std::env::current_exe().expect("a program");
        assert!(wrapper(&exe, |_| None).is_empty());
        let var = |name: &str| match name {
            WANTED => Some(OsString::new()),
            OOM => Some("500".into()),
            NICE => Some("high".into()),
            _ => None,
        };
        let all = wrapper(&exe, var);
        assert_eq!(all[1..], words("agent-exec --coder-oom=500 --"));
    }

    #[test]
    fn what_is_wrapped_is_read_back() {
        assert_eq!(plan(&words("coder agent")), None);
        assert_eq!(
            plan(&words(
                "coder agent-exec --coder-nice=7 -- ls --coder-oom=1"
            )),
            Some(Ok(Plan {
                oom: None,
                nice: Some(7),
                command: words("ls --coder-oom=1"),
            }))
        );
        for bad in [
            "coder agent-exec",
            "coder agent-exec --",
            "coder agent-exec ls",
        ] {
            assert!(plan(&words(bad)).is_some_and(|p| p.is_err()), "{bad}");
        }
    }

    #[test]
    fn scores_follow_the_agents_own() {
        assert_eq!(
            [-900, 0, 997, 998, 1000].map(default_oom),
            [0, 998, 998, 1000, 1000]
        );
    }
}

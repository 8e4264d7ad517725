//! `config-ssh`: makes OpenSSH, and all that uses it, reach workspaces.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use adit_rest::{SshConfig, WorkspacesResponse};
use anyhow::{Context as _, Result, bail};

use crate::{
    api::Api,
    cli::{ConfigSshArgs, Wait},
    private, prompt,
    settings::Settings,
    ssh_config::{self, Block},
};

/// Writes the block, after asking.
pub(crate) async fn run(settings: &Settings, args: &ConfigSshArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let deployment = match api.get::<SshConfig>("/api/v2/deployment/ssh").await {
        Ok(config) => config,
        Err(error) if api.status_of(&error) == Some(404) => SshConfig {
            hostname_prefix: "coder.".to_owned(),
            ..SshConfig::default()
        },
        Err(error) => return Err(error).context("ask the control plane for its SSH settings"),
    };
    let file = match &args.ssh_config_file {
        Some(file) => expand_home(file, settings),
        None => settings
            .environment
            .home
            .as_deref()
            .context("no home directory: name the file with --ssh-config-file")?
            .join(".ssh/config"),
    };
    let before = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let remembered = if args.use_previous_options {
        ssh_config::remembered(&before).with_context(|| format!("read {}", file.display()))?
    } else {
        Vec::new()
    };
    let block = block(settings, args, &deployment, &remembered, &api).await?;
    let after = ssh_config::replace(&before, &block.render())
        .with_context(|| format!("edit {}", file.display()))?;
    if after == before {
        eprintln!("No changes to make.");
        return Ok(());
    }
    if args.dry_run {
        println!("{}", block.render());
        eprintln!("Dry run: {} was not changed.", file.display());
        return Ok(());
    }
    if !args.yes {
        prompt::confirm(&format!("Write to {}?", file.display()))?;
    }
    write(&file, &after).with_context(|| format!("write {}", file.display()))?;
    println!("Updated {:?}", file.display().to_string());
    let mine: WorkspacesResponse = api
        .get(&format!(
            "/api/v2/workspaces?q={}&limit=1",
            api.encode("owner:\"me\"")
        ))
        .await?;
    if let Some(workspace) = mine.workspaces.first() {
        let host = if block.suffix.is_empty() {
            format!("{}{}", block.prefix, workspace.name)
        } else {
            format!("{}.{}", workspace.name, block.suffix)
        };
        println!(
            "You should now be able to ssh into your workspace.\nFor example, try running:\n\n\t$ ssh {host}\n"
        );
    }
    Ok(())
}

async fn block(
    settings: &Settings,
    args: &ConfigSshArgs,
    deployment: &SshConfig,
    remembered: &[(String, String)],
    api: &Api,
) -> Result<Block> {
    let previous = |key: &str| {
        remembered
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    };
    let wait = match args.wait {
        Wait::Yes => Some("yes"),
        Wait::No => Some("no"),
        Wait::Auto => match previous("wait").as_deref() {
            Some("yes") => Some("yes"),
            Some("no") => Some("no"),
            _ => None,
        },
    };
    let disable_autostart =
        args.disable_autostart || previous("disable-autostart").as_deref() == Some("true");
    let no_wildcard = args.no_wildcard || previous("no-wildcard").as_deref() == Some("true");
    let prefix = args
        .ssh_host_prefix
        .clone()
        .or_else(|| previous("ssh-host-prefix"));
    let suffix = args
        .hostname_suffix
        .clone()
        .or_else(|| previous("hostname-suffix"));
    let mut user_options = args.ssh_option.clone();
    if user_options.is_empty() {
        user_options = remembered
            .iter()
            .filter(|(name, _)| name == "ssh-option")
            .map(|(_, value)| value.clone())
            .collect();
    }
    if let Some(bad) = user_options
        .iter()
        .find(|option| option.contains(['\n', '\r']))
    {
        bail!("the SSH option {bad:?} holds a line break");
    }
    let mut memory = Vec::new();
    if let Some(wait) = wait {
        memory.push(format!("wait={wait}"));
    }
    if disable_autostart {
        memory.push("disable-autostart=true".to_owned());
    }
    if no_wildcard {
        memory.push("no-wildcard=true".to_owned());
    }
    if let Some(prefix) = &prefix {
        memory.push(format!("ssh-host-prefix={prefix}"));
    }
    if let Some(suffix) = &suffix {
        memory.push(format!("hostname-suffix={suffix}"));
    }
    memory.extend(
        user_options
            .iter()
            .map(|option| format!("ssh-option={option}")),
    );
    let hosts = if no_wildcard {
        Some(all_workspaces(api).await?)
    } else {
        None
    };
    Ok(Block {
        program: ssh_config::quote(&program(args)?).map_err(anyhow::Error::msg)?,
        global_args: global_args(settings)?,
        prefix: prefix.unwrap_or_else(|| deployment.hostname_prefix.clone()),
        suffix: suffix.unwrap_or_else(|| {
            deployment
                .hostname_suffix
                .trim_start_matches('.')
                .to_owned()
        }),
        hosts,
        wait,
        disable_autostart,
        user_options,
        deployment_options: deployment
            .ssh_config_options
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        remembered: memory,
    })
}

fn program(args: &ConfigSshArgs) -> Result<String> {
    let path = match &args.binary_path {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("find the path of this program")?,
    };
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("the path {path:?} of this program is not UTF-8"))
}

fn global_args(settings: &Settings) -> Result<String> {
    let mut text = String::new();
    let mut push = |flag: &str, value: &str| -> Result<()> {
        let value = ssh_config::quote(value).map_err(anyhow::Error::msg)?;
        text.push_str(&format!("{flag} {value} "));
        Ok(())
    };
    let dir = settings.store.dir();
    let dir =
        std::path::absolute(dir).with_context(|| format!("make {} absolute", dir.display()))?;
    push("--global-config", &dir.to_string_lossy())?;
    for header in settings.headers() {
        push("--header", &header)?;
    }
    if let Some(command) = settings.header_command() {
        push("--header-command", command)?;
    }
    Ok(text)
}

async fn all_workspaces(api: &Api) -> Result<Vec<String>> {
    const PAGE: usize = 100;
    let mut names = Vec::new();
    loop {
        let page: WorkspacesResponse = api
            .get(&format!(
                "/api/v2/workspaces?q={}&limit={PAGE}&offset={}",
                api.encode("owner:me"),
                names.len()
            ))
            .await?;
        let got = page.workspaces.len();
        names.extend(page.workspaces.into_iter().map(|workspace| workspace.name));
        if got < PAGE {
            return Ok(names);
        }
    }
}

fn expand_home(file: &Path, settings: &Settings) -> PathBuf {
    match (file.strip_prefix("~"), &settings.environment.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => file.to_owned(),
    }
}

/// Replaces the file in one step, through a symbolic link if it is one, and
/// keeps its mode.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(dir) = target.parent() {
        private::create_dir(dir, 0o700)?;
    }
    let temporary = target.with_extension(format!("adit-{}", std::process::id()));
    let result = (|| {
        let mut out = private::create_file(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        if let Ok(metadata) = fs::metadata(&target) {
            fs::set_permissions(&temporary, metadata.permissions())?;
        }
        fs::rename(&temporary, &target)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn keeps_mode_and_link() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let link = dir.path().join("config");
        write(&real, "one").unwrap();
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, "two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "two");
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }
}

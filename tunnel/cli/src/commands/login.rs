//! `login`, `logout` and `whoami`.

use std::{collections::BTreeMap, io::IsTerminal as _};

use adit_rest::{
    CreateFirstUserRequest, CreateFirstUserResponse, GenerateApiKeyResponse, LoginRequest,
    LoginResponse, Response, User,
};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::json;
use url::Url;

use crate::{
    api::Api,
    cli::{LoginArgs, LoginCommand, LogoutArgs, Output, OutputArgs},
    prompt,
    settings::{Login, Settings, parse_url},
};

/// Logs in, makes the first user of a new control plane, or prints the stored
/// token.
pub(crate) async fn login(settings: &Settings, args: LoginArgs) -> Result<()> {
    if let Some(LoginCommand::Token) = args.token {
        return print_token(settings);
    }
    let url = match &args.address {
        Some(text) => parse_url(text)?,
        None => settings
            .url()?
            .context("name the control plane, as in 'adit login https://coder.example.com'")?,
    };
    let given = settings
        .global
        .token
        .clone()
        .or_else(|| settings.environment.token.clone());
    println!(
        "Attempting to authenticate with URL: '{}'",
        url.as_str().trim_end_matches('/')
    );
    let anonymous = Api::anonymous(settings, &url).await?;
    let token = match first_user_exists(&anonymous).await? {
        false => make_first_user(&anonymous, &args).await?,
        true => {
            let given = match given {
                Some(token) => token,
                None => ask_for_token(&url)?,
            };
            let api = Api::new(
                settings,
                &Login {
                    url: url.clone(),
                    token: given.clone(),
                },
            )
            .await?;
            if args.use_token_as_session || settings.global.token.is_none() {
                given
            } else {
                let key: GenerateApiKeyResponse = api
                    .post("/api/v2/users/me/keys", &json!({}))
                    .await
                    .context("create a session with the given token")?;
                key.key
            }
        }
    };
    let api = Api::new(
        settings,
        &Login {
            url: url.clone(),
            token: token.clone(),
        },
    )
    .await?;
    let user: User = api.get("/api/v2/users/me").await?;
    settings.store.save(&url, &token)?;
    println!("Welcome to Coder, {}! You're authenticated.", user.username);
    Ok(())
}

async fn first_user_exists(api: &Api) -> Result<bool> {
    match api.get::<Response>("/api/v2/users/first").await {
        Ok(_) => Ok(true),
        Err(error) if api.status_of(&error) == Some(404) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn make_first_user(api: &Api, args: &LoginArgs) -> Result<String> {
    println!("Your Coder deployment hasn't been set up!");
    let interactive = std::io::stdin().is_terminal();
    let missing = |flag: &str| {
        anyhow!("this control plane has no user yet: give --{flag} to create the first one")
    };
    let ask = |given: &Option<String>, flag: &str, question: &str| match given {
        Some(text) => Ok(text.clone()),
        None if interactive => prompt::line(question),
        None => Err(missing(flag)),
    };
    let username = ask(
        &args.first_user_username,
        "first-user-username",
        "What username would you like?",
    )?;
    let email = ask(
        &args.first_user_email,
        "first-user-email",
        "What's your email?",
    )?;
    let password = match &args.first_user_password {
        Some(password) => password.clone(),
        None if interactive => prompt::secret("Enter a password:")?,
        None => return Err(missing("first-user-password")),
    };
    let request = CreateFirstUserRequest {
        email: email.clone(),
        name: args.first_user_full_name.clone().unwrap_or_default(),
        username,
        password: password.clone(),
        ..CreateFirstUserRequest::default()
    };
    let _: CreateFirstUserResponse = api
        .post("/api/v2/users/first", &request)
        .await
        .context("create the first user")?;
    let session: LoginResponse = api
        .post("/api/v2/users/login", &LoginRequest { email, password })
        .await
        .context("log in as the first user")?;
    Ok(session.session_token)
}

fn ask_for_token(url: &Url) -> Result<String> {
    let page = format!("{}/cli-auth", url.as_str().trim_end_matches('/'));
    if !std::io::stdin().is_terminal() {
        bail!("give a session token with --token; {page} shows one to whoever is logged in there");
    }
    println!("Open the following in your browser:\n\n\t{page}\n");
    prompt::secret("Paste your token here:")
}

fn print_token(settings: &Settings) -> Result<()> {
    let (stored_url, token) = settings
        .stored()?
        .context("You are not logged in. Try logging in using 'adit login <url>'.")?;
    if let Some(url) = &settings.global.url
        && url.origin() != stored_url.origin()
    {
        bail!("the stored login is for {stored_url}, not for {url}");
    }
    println!("{token}");
    Ok(())
}

/// Ends the session and forgets it.
pub(crate) async fn logout(settings: &Settings, args: &LogoutArgs) -> Result<()> {
    let login = settings.login()?;
    if !args.yes {
        prompt::confirm("Are you sure you want to log out?")?;
    }
    let api = Api::new(settings, &login).await?;
    // The session may be gone already; the files are what matters here.
    if let Err(error) = api
        .send(http::Method::POST, "/api/v2/users/logout", None::<&()>)
        .await
    {
        eprintln!("adit: the control plane did not end the session: {error:#}");
    }
    settings.store.clear()?;
    println!("You are no longer logged in. You can log in using 'adit login <url>'.");
    Ok(())
}

/// Prints who is logged in.
pub(crate) async fn whoami(settings: &Settings, args: &OutputArgs) -> Result<()> {
    let login = settings.login()?;
    let api = Api::new(settings, &login).await?;
    let user: User = api.get("/api/v2/users/me").await?;
    let url = login.url.as_str().trim_end_matches('/');
    match args.output {
        Output::Text => println!(
            "Coder is running at {url}, You're authenticated as {} !",
            user.username
        ),
        Output::Json => {
            let mut roles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for role in &user.roles {
                let organization = match role.organization_id.as_str() {
                    "" => "*",
                    id => id,
                };
                roles
                    .entry(organization)
                    .or_default()
                    .push(&role.display_name);
            }
            let me = json!([{
                "url": url,
                "username": user.username,
                "user_id": user.id,
                "organization_ids": user.organization_ids,
                "roles": roles,
            }]);
            println!("{}", serde_json::to_string_pretty(&me)?);
        }
    }
    Ok(())
}

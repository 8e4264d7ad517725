//! Tokens in exchange for the cloud's word on which machine this is.
//!
//! Each cloud runs a metadata service that only its machines reach. It signs
//! a statement about the machine; the control plane checks the signature and
//! answers with the token of the agent that belongs to the machine.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use adit_http::{
    Body, Client, ClientConfig, Error, HeaderMap, HeaderName, HeaderValue, Method, ProxyConfig, Url,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where the clouds' metadata services answer.
const METADATA: &str = "http://169.254.169.254";
/// Time to reach a metadata service; it is one hop away.
const CONNECT: Duration = Duration::from_secs(2);
/// Time for one of its answers.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for the whole exchange.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Largest statement accepted, in bytes.
const LARGEST: usize = 64 << 10;

/// Whose machine this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon EC2.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Google,
}

impl Cloud {
    /// The name as in the control plane's paths.
    fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Google => "google",
        }
    }

    /// The address of the metadata service. `var` reads the environment:
    /// the clouds' own tools let it name another address.
    fn metadata(self, var: impl Fn(&str) -> Option<String>) -> String {
        let set = |name| var(name).filter(|value: &String| !value.is_empty());
        match self {
            Self::Aws => set("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            Self::Google => set("GCE_METADATA_HOST").map(|host| format!("http://{host}")),
            Self::Azure => None,
        }
        .unwrap_or_else(|| METADATA.to_owned())
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No exchange has succeeded yet.
    #[error("the instance identity has not been exchanged for a token yet")]
    NotYet,
    /// The metadata service does not say who this machine is.
    #[error("{cloud} metadata: {source}")]
    Metadata {
        /// Name of the cloud.
        cloud: &'static str,
        /// Why.
        source: Error,
    },
    /// The metadata service said something that is no statement.
    #[error("{cloud} metadata: the answer is not usable")]
    Statement {
        /// Name of the cloud.
        cloud: &'static str,
    },
    /// The control plane does not take the statement.
    #[error("{cloud} instance identity: {source}")]
    Refused {
        /// Name of the cloud.
        cloud: &'static str,
        /// Why.
        source: Error,
    },
    /// It took too long.
    #[error("the instance identity could not be exchanged within {} s", EXCHANGE.as_secs())]
    Late,
}

impl IdentityError {
    /// What can be done about it, in one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NotYet | Self::Late => "The agent tries again by itself.".to_owned(),
            Self::Metadata { .. } | Self::Statement { .. } => {
                "Check that this is a machine of that cloud with its metadata service enabled, or use CODER_AGENT_AUTH=token.".to_owned()
            }
            Self::Refused { source, .. } => match source.status().map(|s| s.as_u16()) {
                Some(401) => "The control plane does not accept identities of this cloud: configure it there, or use CODER_AGENT_AUTH=token.".to_owned(),
                Some(404) => "The workspace's build has to name this machine's instance id; restart the workspace, or check CODER_AGENT_NAME.".to_owned(),
                Some(409) => "Set CODER_AGENT_NAME to the agent this is.".to_owned(),
                _ => source.remedy(),
            },
        }
    }

    /// Whether a new attempt may help without anyone changing something.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotYet | Self::Late => true,
            Self::Metadata { source, .. } | Self::Refused { source, .. } => source.is_retryable(),
            Self::Statement { .. } => false,
        }
    }
}

/// A machine of a cloud that proves itself.
pub struct InstanceIdentity {
    cloud: Cloud,
    agent_name: String,
    metadata: Client,
    control: Client,
    token: RwLock<Option<String>>,
}

impl fmt::Debug for InstanceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceIdentity")
            .field("cloud", &self.cloud)
            .field("agent_name", &self.agent_name)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Granted {
    session_token: String,
}

#[derive(Serialize)]
struct Asked<'a> {
    #[serde(flatten)]
    statement: Map<String, Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent_name: &'a str,
}

impl InstanceIdentity {
    /// An identity at the control plane that `control` describes; a session
    /// token in it is left out. `agent_name` says which agent of the machine
    /// this is, if there are several. The metadata service is that of the
    /// cloud, or what `AWS_EC2_METADATA_SERVICE_ENDPOINT` and
    /// `GCE_METADATA_HOST` name.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(
        cloud: Cloud,
        agent_name: impl Into<String>,
        control: ClientConfig,
    ) -> Result<Self, Error> {
        let base = cloud.metadata(|name| std::env::var(name).ok());
        let base = Url::parse(&base).or_else(|_| Url::parse(METADATA));
        let base = base.unwrap_or_else(|_| control.base.clone());
        Self::with_metadata(cloud, agent_name, control, base)
    }

    /// As [`new`](Self::new), with the address of the metadata service.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn with_metadata(
        cloud: Cloud,
        agent_name: impl Into<String>,
        control: ClientConfig,
        metadata: Url,
    ) -> Result<Self, Error> {
        Ok(Self {
            cloud,
            agent_name: agent_name.into(),
            // Reached directly, and never with what is meant for others.
            metadata: Client::new(ClientConfig {
                proxy: ProxyConfig::none(),
                connect_timeout: CONNECT,
                request_timeout: ANSWER,
                ..ClientConfig::new(metadata)
            })?,
            control: Client::new(ClientConfig {
                session_token: None,
                ..control
            })?,
            token: RwLock::default(),
        })
    }

    /// The token of the last exchange.
    ///
    /// # Errors
    /// [`IdentityError::NotYet`].
    pub fn token(&self) -> Result<String, IdentityError> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.clone().ok_or(IdentityError::NotYet)
    }

    /// Exchanges the identity for a token. Takes at most 10 s.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn exchange(&self) -> Result<String, IdentityError> {
        let token = tokio::time::timeout(EXCHANGE, self.exchange_inner())
            .await
            .map_err(|_| IdentityError::Late)??;
        let mut known = self.token.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(token.clone());
        Ok(token)
    }

    async fn exchange_inner(&self) -> Result<String, IdentityError> {
        let statement = self.statement().await?;
        let path = format!(
            "/api/v2/workspaceagents/{}-instance-identity",
            self.cloud.name()
        );
        let asked = Asked {
            statement,
            agent_name: &self.agent_name,
        };
        let granted: Granted = self
            .control
            .call(Method::POST, &path, &asked)
            .await
            .map_err(|source| IdentityError::Refused {
                cloud: self.cloud.name(),
                source,
            })?;
        Ok(granted.session_token)
    }

    /// What the cloud says, as the control plane wants it.
    async fn statement(&self) -> Result<Map<String, Value>, IdentityError> {
        let unusable = || IdentityError::Statement {
            cloud: self.cloud.name(),
        };
        let fields = match self.cloud {
            Cloud::Aws => {
                let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
                let session = self.ask(Method::PUT, "/latest/api/token", ttl).await?;
                let header = ("x-aws-ec2-metadata-token", session.trim());
                let base = "/latest/dynamic/instance-identity";
                let signature = format!("{base}/signature");
                let signature = self.ask(Method::GET, &signature, header).await?;
                let document = format!("{base}/document");
                let document = self.ask(Method::GET, &document, header).await?;
                vec![("signature", signature), ("document", document)]
            }
            Cloud::Azure => {
                let path = "/metadata/attested/document?api-version=2020-09-01";
                let text = self.ask(Method::GET, path, ("metadata", "true")).await?;
                let fields: Map<String, Value> =
                    serde_json::from_str(&text).map_err(|_| unusable())?;
                let field = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
                let signature = field("signature").ok_or_else(unusable)?;
                let encoding = field("encoding").ok_or_else(unusable)?;
                vec![("signature", signature), ("encoding", encoding)]
            }
            Cloud::Google => {
                let path = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=coder&format=full";
                let header = ("metadata-flavor", "Google");
                let text = self.ask(Method::GET, path, header).await?;
                vec![("json_web_token", text.trim().to_owned())]
            }
        };
        if fields.iter().any(|(_, value)| value.is_empty()) {
            return Err(unusable());
        }
        let named = |(name, value): (&str, String)| (name.to_owned(), Value::String(value));
        Ok(fields.into_iter().map(named).collect())
    }

    /// One question to the metadata service.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        (name, value): (&'static str, &str),
    ) -> Result<String, IdentityError> {
        let cloud = self.cloud.name();
        let failed = |source| IdentityError::Metadata { cloud, source };
        let unusable = || IdentityError::Statement { cloud };
        let mut headers = HeaderMap::new();
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
        let body = (method == Method::PUT).then(|| Body::new("text/plain", ""));
        let answer = self
            .metadata
            .request_with(method, path, body, headers)
            .await
            .map_err(failed)?;
        let bytes = answer.bytes_up_to(LARGEST).await.map_err(failed)?;
        String::from_utf8(bytes.into()).map_err(|_| unusable())
    }
}

#[cfg(test)]
mod tests;

//! JSON types of the Coder REST API (`/api/v2`), shared by server and clients.
//!
//! Every type decodes leniently, as Coder's own clients do: unknown keys are
//! ignored, a missing key is the zero value, `null` stands for an empty array
//! or map, and an unknown enum value becomes `Unknown`. Encoding is strict:
//! arrays are never `null`, optional keys are left out where Coder leaves them
//! out, so that strict decoders (Moshi, Swift) accept what the server sends.
//!
//! The module also holds the two codecs every streaming endpoint needs: server
//! sent events in Coder's dialect ([`sse`]) and RFC 3339 times ([`Time`]).

pub mod agent;
mod boolean;
pub mod deployment;
pub mod derp;
pub mod enums;
pub mod error;
pub mod sse;
pub mod template;
mod time;
pub mod user;
pub mod workspace;

pub use agent::*;
pub use boolean::boolean;
pub use deployment::*;
pub use derp::*;
pub use enums::*;
pub use error::{Response, ValidationError};
pub use template::*;
pub use time::{Time, TimeError};
pub use user::*;
pub use workspace::*;

use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// Reads JSON `null` as the type's zero value.
///
/// # Errors
/// Whatever the inner type reports for a value that is not `null`.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A nil UUID means "not given" everywhere in this API: Go clients cannot
/// leave a UUID field out.
#[must_use]
pub fn given(id: Uuid) -> Option<Uuid> {
    (!id.is_nil()).then_some(id)
}

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}

//! The body of every error reply.

use serde::{Deserialize, Serialize};

/// A sentence for a human, an optional detail for a developer, and the fields
/// of the request that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// Human sentence.
    #[serde(deserialize_with = "crate::nullable")]
    pub message: String,
    /// Debugging text; left out when empty.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::nullable"
    )]
    pub detail: String,
    /// Refused fields; left out when empty.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::nullable"
    )]
    pub validations: Vec<ValidationError>,
}

/// One refused field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValidationError {
    /// JSON name of the field.
    pub field: String,
    /// Why.
    pub detail: String,
}

impl Response {
    /// A reply with only a sentence.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// Adds the debugging text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds a refused field.
    #[must_use]
    pub fn invalid(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.validations.push(ValidationError {
            field: field.into(),
            detail: detail.into(),
        });
        self
    }
}

//! Key-value pairs of a call: the body of an InvokeMetadata packet, a protobuf
//! `map<string, string>` in field 1.

use bytes::Bytes;
use prost::Message as _;

use crate::error::ProtocolError;

/// Pairs in the order of the wire.
pub type Metadata = Vec<(String, String)>;

#[derive(Clone, PartialEq, prost::Message)]
struct Encoded {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// Encodes pairs. Both parts are written even when empty, as strict readers
/// want.
#[must_use]
pub fn encode(pairs: &[(&str, &str)]) -> Bytes {
    let entries = pairs
        .iter()
        .map(|(key, value)| Entry {
            key: Some((*key).to_owned()),
            value: Some((*value).to_owned()),
        })
        .collect();
    Encoded { entries }.encode_to_vec().into()
}

/// Decodes pairs.
///
/// # Errors
/// When the body is not of this form or a part of a pair is missing.
pub fn decode(body: &[u8]) -> Result<Metadata, ProtocolError> {
    let decoded = Encoded::decode(body).map_err(|_| ProtocolError::Metadata)?;
    decoded
        .entries
        .into_iter()
        .map(|entry| entry.key.zip(entry.value).ok_or(ProtocolError::Metadata))
        .collect()
}

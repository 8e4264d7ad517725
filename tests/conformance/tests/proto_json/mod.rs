//! Messages as JSON in the form of the recordings.

use std::sync::LazyLock;

use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde_json::{Map, Value as Json, json};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(adit_messages::FILE_DESCRIPTOR_SET).unwrap());

/// Type of the messages of a method in one direction.
pub(crate) fn message_of(path: &str, response: bool) -> Option<MessageDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = POOL.get_service_by_name(service)?;
    let method = service.methods().find(|known| known.name() == method)?;
    Some(if response {
        method.output()
    } else {
        method.input()
    })
}

pub(crate) fn to_json(descriptor: MessageDescriptor, data: &Bytes) -> Json {
    message(&DynamicMessage::decode(descriptor, data.clone()).unwrap())
}

fn message(message: &DynamicMessage) -> Json {
    assert_eq!(message.unknown_fields().count(), 0, "unknown fields");
    let fields = message
        .fields()
        .map(|(field, value)| (field.name().to_owned(), json_of(&field.kind(), value)));
    Json::Object(fields.collect())
}

fn json_of(kind: &Kind, value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::F32(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(format!("hex:{}", hex::encode(value))),
        Value::EnumNumber(number) => kind
            .as_enum()
            .and_then(|kind: &EnumDescriptor| kind.get_value(*number))
            .map_or_else(|| json!(number), |value| json!(value.name())),
        Value::Message(inner) => message(inner),
        Value::List(values) => values.iter().map(|value| json_of(kind, value)).collect(),
        Value::Map(entries) => {
            let Kind::Message(entry) = kind else {
                return Json::Null;
            };
            let kind = entry.map_entry_value_field().kind();
            let entries = entries
                .iter()
                .map(|(key, value)| (key_text(key), json_of(&kind, value)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Equality where 1 and 1.0 are the same number.
pub(crate) fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

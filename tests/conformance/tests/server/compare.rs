//! Whether this server says what the recorded one said.

use std::collections::BTreeMap;

use adit_drpc::codec::{Kind, Packet};
use adit_tests_conformance::left_out::LeftOut;
use serde_json::Value;

use crate::proto_json;

/// Recorded identifiers and those of this server.
pub(crate) type Ids = BTreeMap<[u8; 16], [u8; 16]>;

/// Fields whose value belongs to one server or one moment.
const OF_THE_MOMENT: &[&str] = &["derp_port", "token", "expires_at", "report_interval"];

/// Compares two packets of one method; learns which identifiers correspond.
pub(crate) fn packets(
    method: &str,
    recorded: &Packet,
    live: &Packet,
    ids: &mut Ids,
    left_out: &mut LeftOut,
) -> Result<(), String> {
    if recorded.kind != live.kind {
        return Err(format!(
            "{:?} {:?} instead of {:?}",
            live.kind,
            text(live),
            recorded.kind
        ));
    }
    match recorded.kind {
        Kind::Message => {
            let descriptor = proto_json::message_of(method, true).ok_or("unknown method")?;
            let recorded = proto_json::to_json(descriptor.clone(), &recorded.data);
            let live = proto_json::to_json(descriptor, &live.data);
            values("", &recorded, &live, ids, &mut |path| {
                left_out.covers(method, path)
            })
        }
        Kind::Error => {
            let (recorded, live) = (error(recorded, ids), error(live, ids));
            if recorded == live {
                Ok(())
            } else {
                Err(format!("error {live:?} instead of {recorded:?}"))
            }
        }
        _ => Ok(()),
    }
}

fn text(packet: &Packet) -> String {
    String::from_utf8_lossy(&packet.data).into_owned()
}

/// An error's text with the identifiers of this server, without what quotes
/// the decoder.
fn error(packet: &Packet, ids: &Ids) -> String {
    let mut text = text(packet);
    for (recorded, live) in ids {
        let [recorded, live] = [recorded, live].map(|id| uuid::Uuid::from_bytes(*id).to_string());
        text = text.replace(&recorded, &live);
    }
    match text.find("proto: ") {
        Some(start) => text[..start + "proto: ".len()].to_owned(),
        None => text,
    }
}

fn values(
    path: &str,
    recorded: &Value,
    live: &Value,
    ids: &mut Ids,
    covered: &mut impl FnMut(&str) -> bool,
) -> Result<(), String> {
    let name = path
        .rsplit(['.', '['])
        .find(|part| !part.ends_with(']'))
        .unwrap_or_default();
    if OF_THE_MOMENT.contains(&name) {
        return Ok(());
    }
    match (recorded, live) {
        (Value::Object(recorded), Value::Object(live)) => {
            // Backwards: workspaces before the agents in them.
            for key in recorded.keys().rev().chain(live.keys().rev()) {
                let path = format!("{path}.{key}");
                match (recorded.get(key), live.get(key)) {
                    (Some(recorded), Some(live)) => values(&path, recorded, live, ids, covered)?,
                    (Some(_), None) if covered(&path) => {}
                    (Some(recorded), None) => {
                        return Err(format!("{path} = {recorded} is missing"));
                    }
                    (None, live) => return Err(format!("{path} = {live:?} is too much")),
                }
            }
            Ok(())
        }
        (Value::Array(recorded), Value::Array(live)) => {
            if recorded.len() != live.len() {
                return Err(format!(
                    "{path} has {} entries instead of {}: {live:?}",
                    live.len(),
                    recorded.len()
                ));
            }
            let (recorded, live) = (sorted(recorded, ids), sorted(live, &Ids::new()));
            for (index, (recorded, live)) in recorded.iter().zip(&live).enumerate() {
                values(&format!("{path}[{index}]"), recorded, live, ids, covered)?;
            }
            Ok(())
        }
        (Value::String(recorded), Value::String(live)) => match (id(recorded), id(live)) {
            (Some(recorded), Some(live)) => {
                let known = *ids.entry(recorded).or_insert(live);
                if known == live {
                    Ok(())
                } else {
                    Err(format!("{path} names something else"))
                }
            }
            _ if recorded == live => Ok(()),
            _ => Err(format!("{path} is {live:?} instead of {recorded:?}")),
        },
        _ if proto_json::same(recorded, live) => Ok(()),
        _ => Err(format!("{path} is {live} instead of {recorded}")),
    }
}

/// Lists of things that have no order are put into that of what describes
/// them.
fn sorted(list: &[Value], ids: &Ids) -> Vec<Value> {
    let own = |item: &Value| {
        let recorded = item
            .get("workspace_id")
            .and_then(Value::as_str)
            .and_then(id)?;
        Some(ids.get(&recorded).copied().unwrap_or(recorded))
    };
    let mut list = list.to_vec();
    list.sort_by_key(|item| {
        let described: String = ["script", "slug", "key", "name"]
            .iter()
            .filter_map(|key| item.get(key).map(Value::to_string))
            .collect();
        (described, own(item))
    });
    list
}

fn id(text: &str) -> Option<[u8; 16]> {
    let digits = text
        .strip_prefix("hex:")
        .filter(|digits| digits.len() == 32)?;
    let mut id = [0; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    Some(id)
}

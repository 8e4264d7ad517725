use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use prost::Message as _;

use crate::{agent, relay, tailnet, time, uuid_from_bytes, uuid_to_bytes};

#[test]
fn banner_has_the_known_encoding() {
    let banner = agent::ServiceBanner {
        enabled: true,
        message: "hello".into(),
        background_color: "#f00".into(),
    };
    assert_eq!(banner.encode_to_vec(), b"\x08\x01\x12\x05hello\x1a\x04#f00");
}

#[test]
fn empty_home_params_stay_on_the_wire() {
    let map = tailnet::DerpMap {
        home_params: Some(tailnet::derp_map::HomeParams::default()),
        ..tailnet::DerpMap::default()
    };
    assert_eq!(map.encode_to_vec(), [0x0a, 0x00]);
}

#[test]
fn metadata_uses_field_two_and_optional_bytes_have_presence() {
    let request = agent::BatchUpdateMetadataRequest {
        metadata: vec![agent::Metadata::default()],
    };
    assert_eq!(request.encode_to_vec(), [0x12, 0x00]);

    let manifest = agent::Manifest::decode(&[0x92, 0x01, 0x00][..]).unwrap();
    assert_eq!(manifest.parent_id.as_deref(), Some(&[][..]));
    assert_eq!(agent::Manifest::default().parent_id, None);
}

#[test]
fn metadata_interval_counts_seconds_as_nanoseconds() {
    let proto = time::metadata_interval_to_proto(10);
    assert_eq!((proto.seconds, proto.nanos), (0, 10));
    assert_eq!(
        time::metadata_interval_from_proto(&proto),
        Duration::from_secs(10)
    );
}

#[test]
fn uuid_fields_have_sixteen_bytes() {
    assert_eq!(uuid_from_bytes(&uuid_to_bytes([9; 16])), Some([9; 16]));
    assert_eq!(uuid_from_bytes(&[0; 15]), None);
    assert_eq!(uuid_from_bytes(&[0; 17]), None);
}

#[test]
fn time_before_1970_is_normalised() {
    let time = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    let proto = time::timestamp_to_proto(time);
    assert_eq!((proto.seconds, proto.nanos), (-2, 500_000_000));
    assert_eq!(time::timestamp_from_proto(&proto), Some(time));
}

#[test]
fn relayed_nodes_keep_unknown_fields() {
    // Field 1 of the request, in it field 1: a Node with id 5 and the unknown
    // field 100.
    let node = [0x08, 0x05, 0xa0, 0x06, 0x07];
    let mut request = vec![0x0a, 0x07, 0x0a, 0x05];
    request.extend_from_slice(&node);
    let raw = relay::update_self_node(request.into()).unwrap().unwrap();
    assert_eq!(raw, &node[..]);

    let response = relay::CoordinateResponse {
        peer_updates: vec![relay::PeerUpdate {
            id: uuid_to_bytes([1; 16]),
            node: Some(raw),
            kind: tailnet::coordinate_response::peer_update::Kind::Node.into(),
            reason: "init".into(),
        }],
        error: String::new(),
    };
    let encoded = response.encode_to_vec();
    assert!(encoded.windows(node.len()).any(|window| window == node));
    let decoded = tailnet::CoordinateResponse::decode(&encoded[..]).unwrap();
    assert_eq!(decoded.peer_updates[0].node.as_ref().unwrap().id, 5);
}

proptest! {
    #[test]
    fn durations_round_trip(seconds in 0..=u64::from(u32::MAX), nanos in 0..1_000_000_000u32) {
        let duration = Duration::new(seconds, nanos);
        let proto = time::duration_to_proto(duration);
        prop_assert_eq!(time::duration_from_proto(&proto), Some(duration));
    }

    #[test]
    fn any_time_message_converts_or_is_refused(seconds: i64, nanos: i32) {
        let _ = time::duration_from_proto(&prost_types::Duration { seconds, nanos });
        let _ = time::timestamp_from_proto(&prost_types::Timestamp { seconds, nanos });
    }

    #[test]
    fn any_input_decodes_or_is_refused(input in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = agent::Manifest::decode(&input[..]);
        let _ = agent::UpdateStatsRequest::decode(&input[..]);
        let _ = agent::PushContextStateRequest::decode(&input[..]);
        let _ = tailnet::CoordinateRequest::decode(&input[..]);
        let _ = tailnet::CoordinateResponse::decode(&input[..]);
        let _ = tailnet::TelemetryRequest::decode(&input[..]);
    }
}

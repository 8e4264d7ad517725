//! The first packets and the environment, compared with a recording of
//! Coder's agent.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use adit_agent_exec::{EnvLayers, Silent, StaticContext, User};
use adit_agent_ssh::{Config, HostKey, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn records() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/wire/ssh-handshake.jsonl"
    );
    let file = std::fs::read_to_string(path).unwrap();
    file.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn record(records: &[Value], kind: &str, from: &str) -> Value {
    let found = records
        .iter()
        .find(|r| r["type"] == kind && r["from"] == from);
    found.unwrap().clone()
}

fn bytes(record: &Value) -> Vec<u8> {
    let hex = record["hex"].as_str().unwrap().as_bytes();
    hex.chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The ten name lists of a KEXINIT packet.
fn name_lists(packet: &[u8]) -> Vec<Vec<String>> {
    const LENGTH_PADDING_KIND_COOKIE: usize = 4 + 1 + 1 + 16;
    let mut rest = &packet[LENGTH_PADDING_KIND_COOKIE..];
    (0..10)
        .map(|_| {
            let (len, tail) = rest.split_first_chunk().unwrap();
            let (list, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
            rest = tail;
            let text = std::str::from_utf8(list).unwrap();
            text.split(',').map(str::to_owned).collect()
        })
        .collect()
}

#[tokio::test]
async fn the_server_introduces_itself_like_coders() {
    let records = records();
    let context = StaticContext::of_this_process();
    let config = Config::new(Arc::new(context), Arc::new(Silent));
    let server = Server::new(config, &HostKey::derive("", "", "").unwrap());
    let (mut client, io) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move { server.serve(io, None).await });
    for kind in ["ssh_identification", "ssh_packet"] {
        client
            .write_all(&bytes(&record(&records, kind, "client")))
            .await
            .unwrap();
    }
    let recorded = record(&records, "ssh_identification", "agent");
    let mut identification = vec![0; bytes(&recorded).len()];
    client.read_exact(&mut identification).await.unwrap();
    assert_eq!(identification, bytes(&recorded));
    let length = client.read_u32().await.unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.resize(4 + length as usize, 0);
    client.read_exact(&mut packet[4..]).await.unwrap();
    let ours = name_lists(&packet);
    let theirs = name_lists(&bytes(&record(&records, "ssh_packet", "agent")));
    for (i, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        assert_eq!(ours, theirs, "list {i}");
    }
    drop(client);
    serving.await.unwrap();
}

#[test]
fn the_environment_is_that_of_coders_agent() {
    let records = records();
    let record = records
        .iter()
        .find(|r| r["command"].as_str().is_some_and(|c| c.starts_with("env")));
    let recorded: BTreeMap<String, String> = record.unwrap()["output"]
        .as_str()
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        // The shell makes these.
        .filter(|(name, _)| !["PWD", "SHLVL", "_"].contains(&name.as_str()))
        .collect();
    let computed = ["SSH_CLIENT", "SSH_CONNECTION", "USER", "LOGNAME", "SHELL"];
    let configured = ["GREETING", "PLACE", "EXTRA_ENV"];
    let mut layers = EnvLayers::default();
    for (name, value) in &recorded {
        let pair = (OsString::from(name), OsString::from(value));
        match name.as_str() {
            "GIT_ASKPASS" => layers.agent.push(pair),
            n if computed.contains(&n) => {}
            n if configured.contains(&n) => layers.configured.push(pair),
            n if n.starts_with("CODER_WORKSPACE") => layers.fixed.push(pair),
            _ => layers.process.push(pair),
        }
    }
    let user = User {
        name: "root".into(),
        home: "/home/coder".into(),
        shell: "/bin/bash".into(),
    };
    let built: BTreeMap<String, String> = layers
        .build(&user, &[], None)
        .iter()
        .map(|(n, v)| {
            (
                n.to_string_lossy().into_owned(),
                v.to_string_lossy().into_owned(),
            )
        })
        .collect();
    assert_eq!(built, recorded);
}

//! A template for Coder's `echo` provisioner, which repeats the answers it is
//! given as files: one resource with one agent.

/// What the agent of the template is like.
#[derive(Clone, Copy, Debug)]
pub struct AgentTemplate<'a> {
    /// The agent's token, a UUID.
    pub token: &'a str,
    /// Working directory of its sessions.
    pub directory: &'a str,
    /// Runs when the workspace starts; none if empty.
    pub start_script: &'a str,
    /// Runs when the workspace stops; none if empty.
    pub stop_script: &'a str,
    /// Prints a value to report; none if empty.
    pub metadata_script: &'a str,
    /// Seconds between two runs of it.
    pub metadata_interval: u64,
    /// Variables of its sessions.
    pub environment: &'a [(&'a str, &'a str)],
}

/// Names and contents of the template's files.
#[must_use]
pub fn files(template: &AgentTemplate<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut agent = vec![text(1, "main"), text(2, "main")];
    for (name, value) in template.environment {
        agent.push(bytes(3, &[text(1, name), text(2, value)].concat()));
    }
    agent.extend([
        text(5, "linux"),
        text(6, "amd64"),
        text(7, template.directory),
        text(9, template.token),
    ]);
    if !template.metadata_script.is_empty() {
        let metadata = [
            text(1, "load"),
            text(2, "Load"),
            text(3, template.metadata_script),
            number(4, template.metadata_interval),
            number(5, 2),
        ];
        agent.push(bytes(18, &metadata.concat()));
    }
    for (name, script, when) in [
        ("start", template.start_script, 6),
        ("stop", template.stop_script, 7),
    ] {
        if !script.is_empty() {
            let mut fields = vec![text(1, name), text(3, script), number(when, 1)];
            fields.push(text(9, &format!("{name}.log")));
            agent.push(bytes(21, &fields.concat()));
        }
    }
    let resource = [
        text(1, "main"),
        text(2, "local_process"),
        bytes(3, &agent.concat()),
    ];
    let graph = bytes(3, &resource.concat());
    vec![
        ("0.init.protobuf", bytes(3, &[])),
        ("0.parse.protobuf", bytes(2, &[])),
        ("0.plan.protobuf", bytes(4, &text(3, "{}"))),
        ("0.apply.protobuf", bytes(5, &[])),
        ("0.graph.protobuf", bytes(6, &graph)),
    ]
}

/// A text field of a protobuf message.
fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = varint(field << 3);
    out.extend(varint(value));
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

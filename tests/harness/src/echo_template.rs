//! A template for Coder's `echo` provisioner, which repeats the answers it is
//! given as files: one resource with one agent.

/// What the agent of the template is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentTemplate<'a> {
    /// The agent's token, a UUID.
    pub token: &'a str,
    /// Working directory of its sessions.
    pub directory: &'a str,
    /// Variables of its sessions.
    pub environment: &'a [(&'a str, &'a str)],
    /// Run when the workspace starts or stops.
    pub scripts: &'a [Script<'a>],
    /// Values it reports.
    pub metadata: &'a [Metadata<'a>],
    /// Apps whose health it looks after.
    pub apps: &'a [App<'a>],
    /// Per cent of memory in use that are to be told; none if zero.
    pub memory_threshold: u64,
}

/// When a script runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When the workspace starts.
    #[default]
    Start,
    /// When it stops.
    Stop,
}

/// One script; its name is also that of its log's source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script<'a> {
    /// Shown to users, and the stem of its log file.
    pub name: &'a str,
    /// Text for a shell.
    pub text: &'a str,
    /// When it runs.
    pub when: When,
    /// Seconds it may take; without limit if zero.
    pub timeout: u64,
}

/// One value that the agent reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata<'a> {
    /// Its key, also its name.
    pub key: &'a str,
    /// Prints it.
    pub script: &'a str,
    /// Seconds between two runs of the script.
    pub interval: u64,
    /// Seconds that the script may take.
    pub timeout: u64,
}

/// An app, asked every second whether it is well.
#[derive(Clone, Copy, Debug, Default)]
pub struct App<'a> {
    /// Its short name.
    pub slug: &'a str,
    /// Where it is.
    pub url: &'a str,
    /// Answers with success as long as it is well; never asked if empty.
    pub health_url: &'a str,
    /// Failures in a row after which it is unwell.
    pub threshold: u64,
}

/// Names and contents of the template's files.
#[must_use]
pub fn files(template: &AgentTemplate<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let resource = [
        text(1, "main"),
        text(2, "local_process"),
        bytes(3, &agent(template)),
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

fn agent(template: &AgentTemplate<'_>) -> Vec<u8> {
    let mut agent = vec![text(1, "main"), text(2, "main")];
    for (name, value) in template.environment {
        agent.push(bytes(3, &[text(1, name), text(2, value)].concat()));
    }
    agent.extend([
        text(5, "linux"),
        text(6, "amd64"),
        text(7, template.directory),
    ]);
    agent.extend(template.apps.iter().map(|one| bytes(8, &app(one))));
    agent.push(text(9, template.token));
    for one in template.metadata {
        let fields = [
            text(1, one.key),
            text(2, one.key),
            text(3, one.script),
            number(4, one.interval),
            number(5, one.timeout),
        ];
        agent.push(bytes(18, &fields.concat()));
    }
    for one in template.scripts {
        let when = match one.when {
            When::Start => 6,
            When::Stop => 7,
        };
        let fields = [
            text(1, one.name),
            text(3, one.text),
            number(when, 1),
            number(8, one.timeout),
            text(9, &format!("{}.log", one.name)),
        ];
        agent.push(bytes(21, &fields.concat()));
    }
    if template.memory_threshold > 0 {
        let memory = [number(1, 1), number(2, template.memory_threshold)];
        agent.push(bytes(24, &bytes(1, &memory.concat())));
    }
    agent.concat()
}

fn app(app: &App<'_>) -> Vec<u8> {
    let mut fields = vec![text(1, app.slug), text(2, app.slug), text(4, app.url)];
    if !app.health_url.is_empty() {
        let check = [
            text(1, app.health_url),
            number(2, 1),
            number(3, app.threshold),
        ];
        fields.push(bytes(7, &check.concat()));
    }
    fields.concat()
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

-- One schema for SQLite and PostgreSQL: TEXT for UUIDs and JSON, BIGINT for
-- instants (microseconds since the Unix epoch), counters and booleans (0/1).

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE organizations (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    icon         TEXT NOT NULL,
    description  TEXT NOT NULL,
    is_default   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    username      TEXT NOT NULL,
    email         TEXT NOT NULL,
    name          TEXT NOT NULL,
    avatar_url    TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    status        TEXT NOT NULL,
    login_type    TEXT NOT NULL,
    roles         TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,
    deleted       BIGINT NOT NULL,
    is_system     BIGINT NOT NULL
);
CREATE UNIQUE INDEX users_username ON users (lower(username)) WHERE deleted = 0;
CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE deleted = 0;

CREATE TABLE organization_members (
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    user_id         TEXT NOT NULL REFERENCES users (id),
    roles           TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);

CREATE TABLE api_keys (
    id               TEXT PRIMARY KEY,
    user_id          TEXT NOT NULL REFERENCES users (id),
    hashed_secret    TEXT NOT NULL,
    login_type       TEXT NOT NULL,
    scope            TEXT NOT NULL,
    scopes           TEXT NOT NULL,
    allow_list       TEXT NOT NULL,
    token_name       TEXT NOT NULL,
    lifetime_seconds BIGINT NOT NULL,
    last_used        BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL
);
CREATE INDEX api_keys_user ON api_keys (user_id);
CREATE UNIQUE INDEX api_keys_name ON api_keys (user_id, token_name)
    WHERE login_type = 'token' AND token_name <> '';

CREATE TABLE git_ssh_keys (
    user_id     TEXT PRIMARY KEY REFERENCES users (id),
    public_key  TEXT NOT NULL,
    private_key TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);

CREATE TABLE provisioner_jobs (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    initiator_id    TEXT NOT NULL,
    job_type        TEXT NOT NULL,
    input           TEXT NOT NULL,
    tags            TEXT NOT NULL,
    file_id         TEXT NOT NULL,
    worker_id       TEXT,
    error           TEXT NOT NULL,
    error_code      TEXT NOT NULL,
    logs_length     BIGINT NOT NULL,
    logs_overflowed BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    started_at      BIGINT,
    canceled_at     BIGINT,
    completed_at    BIGINT
);
CREATE INDEX provisioner_jobs_open ON provisioner_jobs (created_at) WHERE completed_at IS NULL;

CREATE TABLE provisioner_job_logs (
    id         INTEGER PRIMARY KEY,
    job_id     TEXT NOT NULL REFERENCES provisioner_jobs (id),
    created_at BIGINT NOT NULL,
    source     TEXT NOT NULL,
    level      TEXT NOT NULL,
    stage      TEXT NOT NULL,
    output     TEXT NOT NULL
);
CREATE INDEX provisioner_job_logs_job ON provisioner_job_logs (job_id, id);

CREATE TABLE templates (
    id                TEXT PRIMARY KEY,
    organization_id   TEXT NOT NULL REFERENCES organizations (id),
    name              TEXT NOT NULL,
    provisioner       TEXT NOT NULL,
    active_version_id TEXT NOT NULL,
    created_by        TEXT NOT NULL,
    deleted           BIGINT NOT NULL,
    options           TEXT NOT NULL,
    created_at        BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL
);
CREATE UNIQUE INDEX templates_name ON templates (organization_id, lower(name)) WHERE deleted = 0;

CREATE TABLE template_versions (
    id              TEXT PRIMARY KEY,
    template_id     TEXT,
    organization_id TEXT NOT NULL,
    name            TEXT NOT NULL,
    message         TEXT NOT NULL,
    readme          TEXT NOT NULL,
    job_id          TEXT NOT NULL REFERENCES provisioner_jobs (id),
    created_by      TEXT NOT NULL,
    archived        BIGINT NOT NULL,
    spec            TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX template_versions_name ON template_versions (template_id, name);

CREATE TABLE template_version_presets (
    id                  TEXT PRIMARY KEY,
    template_version_id TEXT NOT NULL REFERENCES template_versions (id),
    name                TEXT NOT NULL,
    description         TEXT NOT NULL,
    icon                TEXT NOT NULL,
    is_default          BIGINT NOT NULL,
    desired_instances   BIGINT,
    parameters          TEXT NOT NULL,
    created_at          BIGINT NOT NULL
);
CREATE INDEX template_version_presets_version ON template_version_presets (template_version_id);

CREATE TABLE workspaces (
    id                 TEXT PRIMARY KEY,
    owner_id           TEXT NOT NULL REFERENCES users (id),
    organization_id    TEXT NOT NULL REFERENCES organizations (id),
    template_id        TEXT NOT NULL REFERENCES templates (id),
    name               TEXT NOT NULL,
    deleted            BIGINT NOT NULL,
    autostart_schedule TEXT,
    ttl_ms             BIGINT,
    automatic_updates  TEXT NOT NULL,
    last_used_at       BIGINT NOT NULL,
    dormant_at         BIGINT,
    deleting_at        BIGINT,
    next_start_at      BIGINT,
    created_at         BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL
);
CREATE UNIQUE INDEX workspaces_name ON workspaces (owner_id, lower(name)) WHERE deleted = 0;
CREATE INDEX workspaces_template ON workspaces (template_id);

CREATE TABLE workspace_favorites (
    user_id      TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (user_id, workspace_id)
);

CREATE TABLE workspace_builds (
    id                  TEXT PRIMARY KEY,
    workspace_id        TEXT NOT NULL REFERENCES workspaces (id),
    build_number        BIGINT NOT NULL,
    template_version_id TEXT NOT NULL,
    transition          TEXT NOT NULL,
    initiator_id        TEXT NOT NULL,
    job_id              TEXT NOT NULL UNIQUE REFERENCES provisioner_jobs (id),
    reason              TEXT NOT NULL,
    deadline            BIGINT,
    max_deadline        BIGINT,
    preset_id           TEXT,
    daily_cost          BIGINT NOT NULL,
    provisioner_state   TEXT NOT NULL,
    parameters          TEXT NOT NULL,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    UNIQUE (workspace_id, build_number)
);

CREATE TABLE resources (
    id            TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL REFERENCES provisioner_jobs (id),
    position      BIGINT NOT NULL,
    transition    TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    name          TEXT NOT NULL,
    hide          BIGINT NOT NULL,
    icon          TEXT NOT NULL,
    daily_cost    BIGINT NOT NULL,
    metadata      TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);
CREATE INDEX resources_job ON resources (job_id);

CREATE TABLE agents (
    id                         TEXT PRIMARY KEY,
    parent_id                  TEXT,
    resource_id                TEXT NOT NULL REFERENCES resources (id),
    name                       TEXT NOT NULL,
    auth_token                 TEXT NOT NULL,
    auth_token_hash            TEXT NOT NULL,
    deleted                    BIGINT NOT NULL,
    architecture               TEXT NOT NULL,
    operating_system           TEXT NOT NULL,
    environment_variables      TEXT NOT NULL,
    directory                  TEXT NOT NULL,
    expanded_directory         TEXT NOT NULL,
    motd_file                  TEXT NOT NULL,
    version                    TEXT NOT NULL,
    api_version                TEXT NOT NULL,
    subsystems                 TEXT NOT NULL,
    display_apps               TEXT NOT NULL,
    connection_timeout_seconds BIGINT NOT NULL,
    troubleshooting_url        TEXT NOT NULL,
    lifecycle_state            TEXT NOT NULL,
    logs_length                BIGINT NOT NULL,
    logs_overflowed            BIGINT NOT NULL,
    created_at                 BIGINT NOT NULL,
    updated_at                 BIGINT NOT NULL,
    first_connected_at         BIGINT,
    last_connected_at          BIGINT,
    disconnected_at            BIGINT,
    started_at                 BIGINT,
    ready_at                   BIGINT
);
CREATE INDEX agents_resource ON agents (resource_id);
CREATE INDEX agents_token ON agents (auth_token_hash);
CREATE INDEX agents_parent ON agents (parent_id);

CREATE TABLE agent_apps (
    id             TEXT PRIMARY KEY,
    agent_id       TEXT NOT NULL REFERENCES agents (id),
    position       BIGINT NOT NULL,
    slug           TEXT NOT NULL,
    health         TEXT NOT NULL,
    spec           TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    UNIQUE (agent_id, slug)
);

CREATE TABLE app_statuses (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    agent_id     TEXT NOT NULL,
    app_id       TEXT NOT NULL,
    state        TEXT NOT NULL,
    message      TEXT NOT NULL,
    uri          TEXT NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX app_statuses_app ON app_statuses (app_id, created_at);
CREATE INDEX app_statuses_workspace ON app_statuses (workspace_id, created_at);

CREATE TABLE agent_log_sources (
    agent_id     TEXT NOT NULL REFERENCES agents (id),
    id           TEXT NOT NULL,
    display_name TEXT NOT NULL,
    icon         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (agent_id, id)
);

CREATE TABLE agent_scripts (
    id                 TEXT PRIMARY KEY,
    agent_id           TEXT NOT NULL REFERENCES agents (id),
    log_source_id      TEXT NOT NULL,
    display_name       TEXT NOT NULL,
    log_path           TEXT NOT NULL,
    script             TEXT NOT NULL,
    cron               TEXT NOT NULL,
    run_on_start       BIGINT NOT NULL,
    run_on_stop        BIGINT NOT NULL,
    start_blocks_login BIGINT NOT NULL,
    timeout_seconds    BIGINT NOT NULL
);
CREATE INDEX agent_scripts_agent ON agent_scripts (agent_id);

CREATE TABLE agent_script_timings (
    script_id  TEXT NOT NULL REFERENCES agent_scripts (id),
    started_at BIGINT NOT NULL,
    ended_at   BIGINT NOT NULL,
    exit_code  BIGINT NOT NULL,
    stage      TEXT NOT NULL,
    status     TEXT NOT NULL,
    PRIMARY KEY (script_id, started_at)
);

CREATE TABLE agent_logs (
    id            INTEGER PRIMARY KEY,
    agent_id      TEXT NOT NULL REFERENCES agents (id),
    log_source_id TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    level         TEXT NOT NULL,
    output        TEXT NOT NULL
);
CREATE INDEX agent_logs_agent ON agent_logs (agent_id, id);

CREATE TABLE agent_metadata (
    agent_id         TEXT NOT NULL REFERENCES agents (id),
    key              TEXT NOT NULL,
    position         BIGINT NOT NULL,
    display_name     TEXT NOT NULL,
    script           TEXT NOT NULL,
    interval_seconds BIGINT NOT NULL,
    timeout_seconds  BIGINT NOT NULL,
    value            TEXT NOT NULL,
    error            TEXT NOT NULL,
    collected_at     BIGINT NOT NULL,
    PRIMARY KEY (agent_id, key)
);

CREATE TABLE agent_stats (
    id                INTEGER PRIMARY KEY,
    agent_id          TEXT NOT NULL,
    workspace_id      TEXT NOT NULL,
    user_id           TEXT NOT NULL,
    created_at        BIGINT NOT NULL,
    connection_count  BIGINT NOT NULL,
    rx_packets        BIGINT NOT NULL,
    rx_bytes          BIGINT NOT NULL,
    tx_packets        BIGINT NOT NULL,
    tx_bytes          BIGINT NOT NULL,
    sessions_vscode   BIGINT NOT NULL,
    sessions_jetbrains BIGINT NOT NULL,
    sessions_pty      BIGINT NOT NULL,
    sessions_ssh      BIGINT NOT NULL,
    latency_us        BIGINT NOT NULL
);
CREATE INDEX agent_stats_agent ON agent_stats (agent_id, created_at);

CREATE TABLE connection_logs (
    connection_id TEXT NOT NULL,
    agent_id      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    ip            TEXT NOT NULL,
    connected_at  BIGINT,
    disconnected_at BIGINT,
    status_code   BIGINT,
    reason        TEXT NOT NULL,
    PRIMARY KEY (connection_id, agent_id)
);

CREATE TABLE agent_context (
    agent_id TEXT PRIMARY KEY,
    version  BIGINT NOT NULL,
    snapshot TEXT NOT NULL,
    received_at BIGINT NOT NULL
);

-- Lists and the removal of what is old find their rows without reading whole
-- tables.

CREATE INDEX agent_stats_workspace ON agent_stats (workspace_id);
CREATE INDEX agent_stats_age ON agent_stats (created_at);
CREATE INDEX api_keys_expiry ON api_keys (expires_at);
CREATE INDEX workspaces_owner ON workspaces (owner_id) WHERE deleted = 0;
CREATE INDEX app_statuses_age ON app_statuses (created_at);
CREATE INDEX connection_logs_age ON connection_logs (disconnected_at);
CREATE INDEX provisioner_jobs_age ON provisioner_jobs (completed_at);

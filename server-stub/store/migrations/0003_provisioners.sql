-- Who carries out jobs, and lists of jobs by age and by worker.

CREATE TABLE provisioner_daemons (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name            TEXT NOT NULL,
    version         TEXT NOT NULL,
    api_version     TEXT NOT NULL,
    provisioners    TEXT NOT NULL,
    tags            TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    last_seen_at    BIGINT NOT NULL
);
CREATE UNIQUE INDEX provisioner_daemons_name ON provisioner_daemons (organization_id, name);

CREATE INDEX provisioner_jobs_created ON provisioner_jobs (created_at);
CREATE INDEX provisioner_jobs_worker ON provisioner_jobs (worker_id, completed_at);
CREATE INDEX template_versions_job ON template_versions (job_id);

-- Which jobs still have logs to be removed, and which jobs nothing refers to.

ALTER TABLE provisioner_jobs ADD COLUMN logs_removed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX provisioner_jobs_logged ON provisioner_jobs (completed_at) WHERE logs_removed = 0;
CREATE INDEX provisioner_jobs_dry_runs ON provisioner_jobs (completed_at)
    WHERE job_type = 'template_version_dry_run';
DROP INDEX provisioner_jobs_age;

ALTER TABLE agents ADD COLUMN remains_removed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX agents_replaced ON agents (created_at) WHERE deleted = 1 AND remains_removed = 0;

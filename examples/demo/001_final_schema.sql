-- The migration that the application ships: the table `run`, and partitions for two years.
CREATE TABLE run (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    submitted_at timestamptz NOT NULL DEFAULT now(),
    pipeline     text        NOT NULL,
    status       text        NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'succeeded', 'failed')),
    duration     interval,
    payload      jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, submitted_at)
) PARTITION BY RANGE (submitted_at);
CREATE INDEX run_pipeline_submitted_at_idx ON run (pipeline, submitted_at);

CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2025-01-01 00:00:00+00');
CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01 00:00:00+00') TO ('2026-01-01 00:00:00+00');

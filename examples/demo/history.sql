-- What the years have left: older partitions, and 200,000 rows from 2019 to the end of 2025, the same every time.
CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01 00:00:00+00') TO ('2020-01-01 00:00:00+00');
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2021-01-01 00:00:00+00');
CREATE TABLE run_2021 PARTITION OF run FOR VALUES FROM ('2021-01-01 00:00:00+00') TO ('2022-01-01 00:00:00+00');
CREATE TABLE run_2022 PARTITION OF run FOR VALUES FROM ('2022-01-01 00:00:00+00') TO ('2023-01-01 00:00:00+00');
CREATE TABLE run_2023 PARTITION OF run FOR VALUES FROM ('2023-01-01 00:00:00+00') TO ('2024-01-01 00:00:00+00');

CREATE FUNCTION pg_temp.runs(of_year int, amount int) RETURNS SETOF run LANGUAGE sql AS $$
    SELECT md5(of_year || '/' || n)::uuid,
           lower(y) + (upper(y) - lower(y)) * ((n - 0.5) / amount),
           (ARRAY['nightly-report', 'import', 'train-model', 'cleanup'])[1 + n % 4],
           CASE WHEN n % 23 = 0 THEN 'failed' ELSE 'succeeded' END,
           make_interval(secs => 1 + n % 3600),
           jsonb_build_object('attempt', 1 + n % 3, 'worker', 'worker-' || n % 16)
    FROM generate_series(1, amount) AS n,
         tstzrange(make_timestamptz(of_year, 1, 1, 0, 0, 0, 'UTC'),
                   make_timestamptz(of_year + 1, 1, 1, 0, 0, 0, 'UTC')) AS y
$$;
INSERT INTO run SELECT * FROM pg_temp.runs(2019, 8000);
INSERT INTO run SELECT * FROM pg_temp.runs(2020, 14000);
INSERT INTO run SELECT * FROM pg_temp.runs(2021, 20000);
INSERT INTO run SELECT * FROM pg_temp.runs(2022, 28000);
INSERT INTO run SELECT * FROM pg_temp.runs(2023, 35000);
INSERT INTO run SELECT * FROM pg_temp.runs(2024, 43000);
INSERT INTO run SELECT * FROM pg_temp.runs(2025, 52000);
ANALYZE run;

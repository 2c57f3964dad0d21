-- The partitions of `run`, oldest first: bounds, rows as counted, sizes with indexes.
SELECT c.relname AS partition,
       replace(regexp_replace(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES ', ''), ' 00:00:00+00', '') AS range,
       coalesce(counted.amount, 0) AS rows,
       pg_size_pretty(pg_total_relation_size(c.oid)) AS size
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
LEFT JOIN (SELECT tableoid, count(*) AS amount FROM run GROUP BY tableoid) AS counted ON counted.tableoid = c.oid
WHERE i.inhparent = 'run'::regclass
ORDER BY range;

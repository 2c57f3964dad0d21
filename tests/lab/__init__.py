"""What the demo, the tests and the benchmark stand on: real clusters and real PostgreSQL servers."""

"""Real clusters and PostgreSQL servers for the tests, the benchmarks and the demo."""

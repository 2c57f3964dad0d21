"""Everything that talks to PostgreSQL: connect, read the catalog, take locks, execute one action."""

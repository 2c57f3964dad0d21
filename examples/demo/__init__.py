"""`make demo`: a cluster, a database in trouble, a policy that helps, shown step by step; `make demo-down` ends it."""

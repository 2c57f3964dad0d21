"""The node of a local cluster: what runs inside its namespaces. It imports little, for it stays in memory."""

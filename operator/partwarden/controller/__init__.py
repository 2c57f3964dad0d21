"""The operator process: informers, work queue, reconcilers, Jobs, metrics, health, settings."""

"""Partwarden keeps PostgreSQL range partitions the way a PartitionPolicy says."""

__version__ = "0.1.0"

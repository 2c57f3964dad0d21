"""Conditions, details and Events of a PartitionPolicy, from a plan and its outcomes. Pure."""

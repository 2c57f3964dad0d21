"""Decide: specification, inventory and time of day to a plan. Pure."""

"""`make bench`: the cost and speed of Partwarden, measured on real servers and clusters."""

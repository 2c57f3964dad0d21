"""`make bench`: what Partwarden costs and how quick it is, measured on real parts of its own."""

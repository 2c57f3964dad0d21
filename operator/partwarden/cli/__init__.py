"""The commands of partwarden and of its kubectl plugin."""

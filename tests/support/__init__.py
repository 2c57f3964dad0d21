"""Helpers that tests share: values, fakes, samples and what databases and clusters hold."""

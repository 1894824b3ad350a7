"""Benchmarks: commands that print figures beside a peer's, measured in the same run where it can be."""

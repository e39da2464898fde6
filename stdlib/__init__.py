"""The standard library: `.nl` programs, as data."""

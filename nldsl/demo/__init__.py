"""The whole path on real input: check, explain, draw, verify, train and sample HOPE on Python's own sources."""

"""The per-token IR: one token's computation as a small typed graph. ``program.py`` is the place to start."""

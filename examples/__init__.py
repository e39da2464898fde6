"""Experiments at the scale of one CPU: each is one command, its page is in docs/experiments."""

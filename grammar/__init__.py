"""The `.nl` grammar and its companions, as data."""

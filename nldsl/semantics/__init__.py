"""Names, shapes and clocks: from the syntax tree to the per-token IR."""

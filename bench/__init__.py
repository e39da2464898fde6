"""Side-by-side benchmarks; ``python -m bench`` runs the CPU table."""

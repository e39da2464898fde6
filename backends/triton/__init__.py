"""Fused GPU kernels, generated from loops over segments."""

"""Passes over the per-token IR, one file each: program in, program of the same meaning out."""

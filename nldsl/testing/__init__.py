"""Helpers for the tests of the compiler, and of programs."""

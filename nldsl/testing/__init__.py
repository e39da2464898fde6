"""What the tests of programs use: running the examples in a file."""

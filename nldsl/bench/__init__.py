"""``nldsl bench``: how fast a program runs here, in its parallel form and token by token."""

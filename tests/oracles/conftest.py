"""Transformers 5 needs Python 3.11: on 3.10 the module that compares with it, and the table, are left out."""

import sys

collect_ignore = ["test_published.py", "test_catalogue.py"] if sys.version_info[:2] == (3, 10) else []

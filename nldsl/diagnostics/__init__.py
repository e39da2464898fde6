"""Diagnostics: what is found (`diagnostic`), how it is shown (`render`), what each code means (`catalogue`)."""

from .diagnostic import Diagnostic as Diagnostic
from .diagnostic import DiagnosticBag as DiagnosticBag
from .diagnostic import DiagnosticError as DiagnosticError
from .diagnostic import Severity as Severity
from .suggest import suggest as suggest

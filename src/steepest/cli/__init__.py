"""The command line: one thin command per file, the same verbs as in Python.

Exit codes: 0 done, 1 something failed on the way (a run, the program), 2 bad input, 3 a gate was
not passed, 130 interrupted. An error is one message that says what came, what was expected, and
what to do; a traceback means a bug in steepest.
"""

from steepest.cli.app import main

__all__ = ["main"]

"""The command line: one file per command; each adds its arguments to the parser and runs them."""

from symlearn.cli.program import main

__all__ = ["main"]

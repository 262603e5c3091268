"""``python -m symlearn``: the command line, for launchers that start modules."""

import sys

from symlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())

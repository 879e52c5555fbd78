"""`python -m pipeline.cli` is `moss-tok`."""

import sys

from pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

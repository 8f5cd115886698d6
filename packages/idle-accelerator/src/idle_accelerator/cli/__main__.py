"""``python -m idle_accelerator.cli`` is ``idlectl``."""

import sys

from idle_accelerator.cli import main

if __name__ == "__main__":
    sys.exit(main())

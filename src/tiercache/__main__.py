"""The command line's door: ``python -m tiercache``."""

from __future__ import annotations

import sys

from tiercache.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

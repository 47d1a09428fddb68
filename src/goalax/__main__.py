"""`python -m goalax` is `goalax`."""

import sys

from goalax.cli import main

sys.exit(main())

"""`python -m warpbeam` is the command `warpbeam`."""

import sys

from warpbeam.cli.main import main

sys.exit(main())

"""`python -m warpbeam.cli`."""

import sys

from warpbeam.cli.main import main

sys.exit(main())

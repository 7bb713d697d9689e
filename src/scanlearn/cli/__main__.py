"""``python -m scanlearn.cli``."""

import sys

from scanlearn.cli import main

sys.exit(main())

"""What is run, and not imported."""

import sys

sys.exit(0)

"""`python -m tundish`: the command line."""

import sys

from tundish.command import main

sys.exit(main())

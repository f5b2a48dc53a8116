"""`python -m restunnel_hub`."""

import sys

from .cli import main

sys.exit(main())

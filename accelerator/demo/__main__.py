"""``python -m accelerator.demo``."""

import sys

from accelerator.demo import main

sys.exit(main())

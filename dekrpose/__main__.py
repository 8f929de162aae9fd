"""``python -m dekrpose`` is the command line."""

import sys

from dekrpose.cli import main

sys.exit(main())

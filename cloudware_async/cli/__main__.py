"""`python -m cloudware_async.cli` is the command `cloudware`."""

import sys

from cloudware_async.cli import main

sys.exit(main())

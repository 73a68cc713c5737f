"""`python -m mcts_utils.report.verify`, the same as `python -m mcts_utils verify`."""

from __future__ import annotations

import sys

from mcts_utils.report.verify.command import main

if __name__ == "__main__":
    sys.exit(main())

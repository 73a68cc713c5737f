"""`python -m mcts_utils.report.cost`: see report.py."""

from __future__ import annotations

import sys

from mcts_utils.report.cost.report import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m mcts_utils.report.budget`: see report.py."""

from __future__ import annotations

import sys

from mcts_utils.report.budget.report import main

if __name__ == "__main__":
    sys.exit(main())

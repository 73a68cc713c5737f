"""Run `python -m mcts_utils.report.budget`."""

import sys

from mcts_utils.report.budget.report import main

if __name__ == "__main__":
    sys.exit(main())

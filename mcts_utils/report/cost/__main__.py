"""Run `python -m mcts_utils.report.cost`."""

import sys

from mcts_utils.report.cost.report import main

if __name__ == "__main__":
    sys.exit(main())

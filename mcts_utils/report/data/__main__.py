"""Run `python -m mcts_utils.report.data`."""

import sys

from mcts_utils.report.data.report import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m mcts_utils.report.judge`."""

import sys

from mcts_utils.report.judge.report import main

if __name__ == "__main__":
    sys.exit(main())

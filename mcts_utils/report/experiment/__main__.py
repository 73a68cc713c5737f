"""Run `python -m mcts_utils.report.experiment`."""

import sys

from mcts_utils.report.experiment.report import main

if __name__ == "__main__":
    sys.exit(main())

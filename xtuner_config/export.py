"""Write records in the formats of other trainers. `python xtuner_config/export.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mcts_utils.training.export import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

"""Show which tokens of a row are trained. `python xtuner_config/preview.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mcts_utils.training.preview import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

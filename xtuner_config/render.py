"""Print a config by its name, or write the committed ones again. `python xtuner_config/render.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mcts_utils.training.render_config import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

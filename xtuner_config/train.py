"""Stage 3: train a model on records with XTuner. `python xtuner_config/train.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from mcts_utils.training.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

"""Where the trainer's Python lies. No test by itself."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Path(os.environ.get("XTUNER_PYTHON") or ROOT / ".venv-xtuner" / "bin" / "python")

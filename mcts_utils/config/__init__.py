"""Settings of the stages: every variable once, read from the environment."""

from mcts_utils.config.checks import without_password
from mcts_utils.config.concurrency import MAX_AUTO_CONCURRENCY, default_workers
from mcts_utils.config.reader import PROMPT_KEY, env_file, judge_settings, settings_from_env
from mcts_utils.config.settings import Settings

__all__ = [
    "MAX_AUTO_CONCURRENCY",
    "PROMPT_KEY",
    "Settings",
    "default_workers",
    "env_file",
    "judge_settings",
    "settings_from_env",
    "without_password",
]

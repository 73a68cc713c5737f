"""Check that an endpoint gives the model the tokens that it was trained on: compare its POST /tokenize with the config.

    .venv/bin/python -m mcts_utils.training.tokenizer_check --model_dir DIR --base_url http://127.0.0.1:8000

vLLM and actors/serve.py answer /tokenize with the token ids of a conversation in their chat template. Exit code: 0 for
the same tokens, 1 for other tokens (another chat template is served), 2 for bad input or an endpoint without /tokenize.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import requests
from transformers import AutoTokenizer

from mcts_utils.terminal import Parser, run_command
from mcts_utils.training.chat_format import prompt_ids
from mcts_utils.training.settings import CONFIGS
from mcts_utils.types import InputError, Message

TIMEOUT_SECONDS = 60.0
PROBES: tuple[tuple[Message, ...], ...] = (
    (Message("system", "Craft the goal."), Message("user", "Goal: craft beacon.")),
    (Message("user", " a first turn without a system turn \n"),),
    (
        Message("system", "  spaces, {braces} and \u00e9 \n"),
        Message("user", "Crafting commands:\ncraft 1 a using 2 b\n\nGoal: craft a."),
        Message("assistant", "Thought: I need b.\nAction: get 2 b"),
        Message("user", "Got 2 b"),
    ),
)


def differences(model_dir: str, base_url: str) -> list[str]:
    """Return one line for each probe to which the endpoint gives other tokens; empty if a config gives the same ones.

    Raises:
        InputError: if there is no tokenizer, or the endpoint does not answer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"--model_dir {model_dir}: no usable tokenizer") from error
    chats = {settings.chat for settings in CONFIGS.values()}
    served = [tokenized(base_url, probe) for probe in PROBES]
    found: list[str] = []
    for chat in chats:
        expected = [prompt_ids(tokenizer, chat, probe) for probe in PROBES]
        found = [
            f"probe {number}: {len(got)} tokens served, {len(wanted)} trained"
            for number, (got, wanted) in enumerate(zip(served, expected, strict=True), start=1)
            if got != wanted
        ]
        if not found:
            return []
    return found


def tokenized(base_url: str, messages: Sequence[Message]) -> list[int]:
    """Return the endpoint's token ids of a conversation with the generation prompt.

    Raises:
        InputError: if the endpoint does not answer, or not with token ids.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    body: Any = {
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "add_generation_prompt": True,
    }
    try:
        answer = requests.post(f"{root}/tokenize", json=body, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return list(answer.json()["tokens"])
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--base_url {base_url}: no answer to POST /tokenize ({error})") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print the result and return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--base_url", required=True)

    def work() -> int:
        args = parser.parse_args(argv)
        found = differences(args.model_dir, args.base_url)
        for line in found:
            print(f"tokenizer_check.py: {line}", file=sys.stderr)
        if not found:
            print(
                f"tokenizer_check.py: {len(PROBES)} conversations get the tokens that are trained, id by id"
            )
        return 1 if found else 0

    return run_command("tokenizer_check.py", work)


if __name__ == "__main__":
    sys.exit(main())

"""Check that an endpoint gives the model the tokens that it is trained on: POST /tokenize against the chat template.

    .venv/bin/python -m mcts_utils.training.tokenizer_check --model_dir DIR --base_url http://127.0.0.1:8000
        [--chat_template FILE]

vLLM and actors/serve.py answer /tokenize with the token ids of a conversation in their chat template; llama.cpp does
so in two requests, and also says which token ends a turn. SERVER_TOKEN or OPENAI_API_KEY is the server's token. Exit
code: 0 for the same tokens, 1 for others (another chat template is served), 2 for bad input or no /tokenize.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests

from mcts_utils.actors.chat_tokens import ChatTokens, load_tokenizer
from mcts_utils.config import without_password
from mcts_utils.terminal import Parser, run_command
from mcts_utils.training.row_filter import default_template
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


def differences(model_dir: str, base_url: str, chat_template: str = "") -> list[str]:
    """Return one line for each probe to which the endpoint gives other tokens, and one for another end of a turn.

    A template that writes today's date may write it: a folder that was trained here has one that does not.

    Raises:
        InputError: if there is no tokenizer, or the endpoint does not answer.
    """
    tokenizer = load_tokenizer(model_dir, chat_template)
    chat, found = ChatTokens(tokenizer), []
    for number, probe in enumerate(PROBES, start=1):
        turns = chat.turns(probe)
        dated = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        wanted = chat.ids(probe).tolist()
        plain = [{"role": message.role, "content": message.content} for message in probe]
        try:
            got = tokenized(base_url, plain)
        except InputError:
            if turns == plain:
                raise
            got = tokenized(base_url, turns)  # the template refuses a system turn; the actor learns that too
        if got not in (wanted, dated):
            found.append(f"probe {number}: {len(got)} tokens served, {len(wanted)} trained")
    if (served := end_token(base_url)) not in ("", tokenizer.eos_token):
        found.append(f"a turn ends with {served} as served, with {tokenizer.eos_token} as trained")
    return found


def tokenized(base_url: str, turns: Sequence[dict[str, str]]) -> list[int]:
    """Return the endpoint's token ids of a conversation with the generation prompt.

    Raises:
        InputError: if the endpoint does not answer, or not with token ids.
    """
    try:
        ids = _ask(base_url, "tokenize", {"messages": turns, "add_generation_prompt": True})["tokens"]
        if not ids:  # llama.cpp: it tokenizes texts
            text = _ask(base_url, "apply-template", {"messages": turns})["prompt"]
            body = {"content": text, "add_special": True, "parse_special": True}
            ids = _ask(base_url, "tokenize", body)["tokens"]
        return list(ids)
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        shown = without_password(base_url)
        raise InputError(f"--base_url {shown}: no answer to POST /tokenize ({error})") from error


def end_token(base_url: str) -> str:
    """Return the token that ends a turn, as llama.cpp says it, or "" where the server does not say it."""
    try:
        return str(_ask(base_url, "props").get("eos_token", ""))
    except (requests.RequestException, ValueError, AttributeError):
        return ""


def _ask(base_url: str, route: str, body: Any = None) -> Any:
    """Return the JSON answer to a POST of `body`, or to a GET without one."""
    from mcts_utils.actors.transport import is_loopback  # loads the openai library

    token = os.environ.get("SERVER_TOKEN") or os.environ.get("OPENAI_API_KEY")
    url = f"{base_url.rstrip('/').removesuffix('/v1')}/{route}"
    with requests.Session() as session:
        session.trust_env = not is_loopback(urlsplit(url).hostname or "")  # no proxy to this machine
        session.headers.update({"Authorization": f"Bearer {token}"} if token else {})
        answer = session.request("GET" if body is None else "POST", url, json=body, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()
    return answer.json()


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print the result and return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--base_url", required=True)
    parser.add_argument("--chat_template", default="", help="default: CHAT_TEMPLATE")

    def work() -> int:
        args = parser.parse_args(argv)
        found = differences(args.model_dir, args.base_url, args.chat_template or default_template(os.environ))
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

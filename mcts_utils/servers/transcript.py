"""Parsing of a chat for the scripted experts: turns of a conversation, and parts of the judge's question. Pure."""

from __future__ import annotations

import random
import re

ACTION = re.compile(r"^\s*Action\s*:\s*(.*)$", re.MULTILINE)
# A logged step whose observation is one line.
LOGGED = re.compile(r"^Action: (.*)\nObservation: (.*)$", re.MULTILINE)
# The judged step, which ends the question.
CURRENT = re.compile(r"^Current action: (.*)\nCurrent observation: (.*)\Z", re.MULTILINE | re.DOTALL)
Turn = tuple[str, str]  # action, observation


def turns(messages: list[dict]) -> list[Turn]:
    """Return the actions with the observations that followed; a turn without `Action:` is an action as a whole."""
    pairs = []
    for reply, answer in zip(messages, messages[1:], strict=False):
        if reply["role"] == "assistant" and answer["role"] == "user":
            actions = ACTION.findall(reply["content"])
            pairs.append((actions[-1].strip() if actions else reply["content"].strip(), answer["content"]))
    return pairs


def verdict(label: str, reason: str, rng: random.Random, noise: float) -> str:
    """Return the reply to the judge's question; with probability `noise` its label is a random one."""
    if rng.random() < noise:
        label = rng.choice(["Good", "Bad", "Uncertain"])
    return f"{reason}\nJudgment: {label}"

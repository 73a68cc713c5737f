"""How the scripted players read a chat: turns of a conversation, and the parts of the judge's question."""

from __future__ import annotations

import re

ACTION = re.compile(r"^\s*Action\s*:\s*(.*)$", re.MULTILINE)
# One logged step whose observation is one line; and the step that is judged, which ends the question.
LOGGED = re.compile(r"^Action: (.*)\nObservation: (.*)$", re.MULTILINE)
CURRENT = re.compile(r"^Current action: (.*)\nCurrent observation: (.*)\Z", re.MULTILINE | re.DOTALL)
Turn = tuple[str, str]  # action, observation


def turns(messages: list[dict]) -> list[Turn]:
    """Actions and the observations that followed them; a turn without `Action:` is taken whole as the action."""
    pairs = []
    for said, heard in zip(messages, messages[1:], strict=False):
        if said["role"] == "assistant" and heard["role"] == "user":
            actions = ACTION.findall(said["content"])
            pairs.append((actions[-1].strip() if actions else said["content"].strip(), heard["content"]))
    return pairs

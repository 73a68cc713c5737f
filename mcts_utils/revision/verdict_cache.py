"""The verdicts on one tree's nodes, kept in a file and shared by all data types of an output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcts_utils.prompts import JUDGES
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.types import InputError, Message, Verdict

LABELS = ("good", "bad", "uncertain")


def judge_name(model: str, weights: str) -> str:
    """Whose verdicts they are: a kept one counts for the same model, and the same weights where they are known."""
    return " ".join(filter(None, (model, weights[:16])))


def question_sha256(messages: Sequence[Message]) -> str:
    """Hex digest (16 digits) of a question; a kept verdict counts only for the same question."""
    text = "\x00".join(f"{m.role}\x01{m.content}" for m in messages)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class VerdictCache:
    """The verdicts on one tree, by node id. Used by one thread; `save` replaces the file atomically."""

    def __init__(self, path: Path, model: str, prompt: str) -> None:
        self.path = path
        self._head = {
            "model": model,
            "prompt": prompt,
            "prompt_sha256": hashlib.sha256(JUDGES[prompt].encode()).hexdigest(),
        }
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed = False
        self.used: dict[int, Verdict] = {}  # what this run looked at, asked or kept
        self.asked = 0  # requests of this run
        try:
            kept = read_json(path) if path.exists() else {}
        except InputError:
            kept = {}  # a damaged cache only costs requests
        if all(kept.get(key) == value for key, value in self._head.items()):
            self._rows = dict(kept.get("verdicts", {}))

    def get(self, node: int, question: str) -> Verdict | None:
        """The verdict on the node if it answered the same question."""
        row = self._rows.get(str(node))
        if row is None or row["question"] != question:
            return None
        self.used[node] = Verdict(row["label"], row["reason"], row["asked"], row["parsed"])
        return self.used[node]

    def put(self, node: int, question: str, verdict: Verdict) -> None:
        """Keep a verdict that was just given."""
        self._rows[str(node)] = {"question": question, **asdict(verdict)}
        self._changed = True
        self.asked += verdict.asked
        self.used[node] = verdict

    def save(self) -> None:
        """Write the file if anything is new."""
        if self._changed:
            write_json(self.path, {**self._head, "verdicts": self._rows})
            self._changed = False

    def counts(self) -> dict[str, int]:
        """Distinct verdicts used, by label, those that never parsed, and the requests made for them in this run."""
        labels: list[str] = [verdict.label for verdict in self.used.values()]
        unparsed = sum(not verdict.parsed for verdict in self.used.values())
        return {
            **{label: labels.count(label) for label in LABELS},
            "unparsed": unparsed,
            "requests": self.asked,
        }

"""The verdicts on one tree's nodes, kept in a file that all data types of an output folder share. It asks nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from mcts_utils.config import Settings
from mcts_utils.prompts import JUDGE_PROMPTS
from mcts_utils.revision.votes import combined, votes_of
from mcts_utils.storage.files import read_as, usable, write_json
from mcts_utils.storage.formats.verdicts import KeptVerdict, VerdictFile
from mcts_utils.storage.layout import existing, safe_name
from mcts_utils.types import Message, Verdict

LABELS = ("good", "bad", "uncertain")


def judge_name(model: str, weights: str) -> str:
    """Return the name under which verdicts are kept: the model's, and the start of its weights' digest if known."""
    return " ".join(filter(None, (model, weights[:16])))


def question_sha256(messages: Sequence[Message]) -> str:
    """Return the hex digest (16 digits) of a question; a kept verdict counts only for the same question."""
    text = "\x00".join(f"{m.role}\x01{m.content}" for m in messages)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def verdict_file(model: str, prompt: str, verdicts: Mapping[int, KeptVerdict]) -> VerdictFile:
    """Return the file of verdicts by node id of a judge (`judge_name`) with a prompt (key of prompts.JUDGE_PROMPTS)."""
    digest = hashlib.sha256(JUDGE_PROMPTS[prompt].encode()).hexdigest()
    kept = {str(node): verdict for node, verdict in verdicts.items()}
    return VerdictFile(model=model, prompt=prompt, prompt_sha256=digest, verdicts=kept)


def set_aside_path(path: Path, file: VerdictFile) -> Path:
    """Return where a file of verdicts goes when others take its place."""
    return path.parent / safe_name(f"{file.model} {file.prompt_sha256[:8]}") / path.name


class VerdictCache:
    """The verdicts on one tree, by node id. For one thread; `save` replaces the file atomically."""

    def __init__(self, path: Path, model: str, prompt: str, max_tokens: int = 0) -> None:
        """Read the verdicts of this model with this prompt (key of prompts.JUDGE_PROMPTS), if the file has any.

        Args:
            max_tokens: MAX_TOKEN_LENGTH of the judge. Only verdicts that parsed, from answers of at most so many
                tokens, are taken, so that the others are asked for again; 0: all are.
            path: as `verdicts_path` names it; a file under its earlier name is read where that alone is there, and one
                that was set aside where this judge's verdicts are in no other.
        """
        self.path = path
        length = UNSET if max_tokens in (0, Settings.max_token_length) else max_tokens
        self._empty = replace(verdict_file(model, prompt, {}), max_token_length=length)
        self._kept: dict[str, KeptVerdict] = {}
        self._forgotten: set[int] = set()
        self._changed = False
        self.used: dict[int, Verdict] = {}  # by node, what this run has read or put
        self.asked = 0  # requests of this run
        for file in (existing(path), set_aside_path(path, self._empty)):
            found = usable(file, partial(read_as, file, VerdictFile))
            length = self._empty.max_token_length if max_tokens or not found else found.max_token_length
            if found and replace(found, verdicts={}) == replace(self._empty, max_token_length=length):
                self._kept = {n: kept for n, kept in found.verdicts.items() if kept.parsed or not max_tokens}
                return

    def begun(self, node: int, question: str) -> tuple[Verdict, ...]:
        """Return the kept verdicts on the node, if they answered the same question."""
        kept = None if node in self._forgotten else self._kept.get(str(node))
        return votes_of(kept.verdict()) if kept is not None and kept.question == question else ()

    def forget(self, node: int) -> None:
        """Make the verdict on the node anew, in its place in the file: the answers that it was made of are at hand."""
        self._forgotten.add(node)

    def get(self, node: int, question: str, votes: int = 0) -> Verdict | None:
        """Return the kept verdict on the node, or None unless so many (0: any) answered the same question."""
        found = self.begun(node, question)
        if not found or len(found) < votes:
            return None
        self.used[node] = combined(found[: votes or None])
        return self.used[node]

    def put(self, node: int, question: str, verdict: Verdict, known: Sequence[Verdict] = ()) -> None:
        """Keep a new verdict; `known`: the votes of it that were there already."""
        self.asked += verdict.asked - sum(vote.asked for vote in known)
        self._kept[str(node)] = KeptVerdict.of(question, verdict)
        self._forgotten.discard(node)
        self._changed = True
        self.used[node] = verdict

    def save(self) -> None:
        """Write the file if a verdict is new."""
        if self._changed:
            write_json(self.path, replace(self._empty, verdicts=self._kept))
            self._changed = False

    def counts(self) -> dict[str, int]:
        """Return the numbers of nodes by label, of those whose verdict never parsed, and of this run's requests."""
        labels: list[str] = [verdict.label for verdict in self.used.values()]
        unparsed = sum(not verdict.parsed for verdict in self.used.values())
        return {
            **{label: labels.count(label) for label in LABELS},
            "unparsed": unparsed,
            "requests": self.asked,
        }

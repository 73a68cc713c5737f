"""The actor as judge of single steps (Section 3.1, Appendix A): one verdict per tree node, kept beside the output.

Finds the transition point of a path; knows nothing of pairs, replays or rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any

from mcts_utils.conversation import JUDGES, is_signal_step, judge_messages, parse_verdict
from mcts_utils.revision import Cut, Path
from mcts_utils.rollout import Stopped
from mcts_utils.storage import read_json, write_json
from mcts_utils.types import Actor, ContextOverflow, InputError, Message, Task, Verdict

ASKS = 4  # the first at temperature 0, then up to three again, at temperature 1 and with other seeds
# Steps of one path that are asked about at once. Whole paths at once ask 3.6 times the verdicts and take 1.8 times as
# long where several trees are at work; they pay where one tree has all slots for itself.
WAVE = 4
LABELS = ("good", "bad", "uncertain")
UNASKED = Verdict("uncertain", "behind the first bad step", 0, True)
SIGNAL = Verdict("uncertain", "a revision signal is no step in the environment", 0, True)


def verdicts_path(output_dir: str | FilePath, index: int) -> FilePath:
    """The verdicts on one tree's nodes, shared by all data types of an output folder."""
    return FilePath(output_dir, "verdicts", f"search_results_{index}.json")


def judge_name(model: str, weights: str) -> str:
    """Whose verdicts they are: a kept one counts for the same model, and the same weights where they are known."""
    return " ".join(filter(None, (model, weights[:16])))


def question_sha256(messages: Sequence[Message]) -> str:
    """Hex digest (16 digits) of a question; a kept verdict counts only for the same question."""
    text = "\x00".join(f"{m.role}\x01{m.content}" for m in messages)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class VerdictCache:
    """The verdicts on one tree, by node id. Used by one thread; `save` replaces the file atomically."""

    def __init__(self, path: FilePath, model: str, prompt: str) -> None:
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


class Judge:
    """Asks the actor about steps. Safe to use from many threads, one path each."""

    def __init__(
        self,
        actor: Actor,
        prompt: str,
        *,
        seed: int = 0,
        wave: int = WAVE,
        slots: int = 16,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`wave`: steps of one path asked about at once, 0 for all. `slots`: requests in flight at most."""
        self.actor, self.prompt, self.seed, self.wave, self.stopped = actor, prompt, seed, wave, stopped
        self._threads = ThreadPoolExecutor(max(slots, wave), thread_name_prefix="judge")

    def close(self) -> None:
        """Wait for the requests under way and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def ask(self, messages: Sequence[Message]) -> Verdict:
        """One verdict: greedy first, asked again with other seeds, "uncertain" if nothing parses.

        Raises:
            ActorError: if the actor cannot answer at all; a question longer than its context is "uncertain".
        """
        try:
            for again in range(ASKS):
                text = self.actor.sample(messages, 1, 1.0 if again else 0.0, self.seed + again)[0].text
                parsed = parse_verdict(text)
                if parsed is not None:
                    return Verdict(parsed[0], parsed[1], again + 1, True)
        except ContextOverflow:
            return Verdict("uncertain", "the question does not fit the context", again + 1, False)
        return Verdict("uncertain", "no answer parsed", ASKS, False)

    def first_bad(self, task: Task, path: Path, start: int, cache: VerdictCache) -> Cut:
        """The first step from `start` on that is judged bad (t'); "uncertain" means go on.

        Steps are asked about in waves of a fixed size, so that the same questions are asked whatever else is going on,
        and at most `wave` - 1 verdicts go beyond the first bad one.
        """
        seen: list[tuple[int, Verdict]] = []
        size = self.wave or max(1, len(path.steps) - start)
        for begin in range(start, len(path.steps), size):
            if self.stopped():
                raise Stopped
            wave = range(begin, min(begin + size, len(path.steps)))
            for index, verdict in zip(wave, self._verdicts(task, path, wave, cache), strict=True):
                seen.append((path.nodes[index], verdict))
                if verdict.label == "bad":
                    return Cut(index, tuple(seen))
        return Cut(None, tuple(seen))

    def _verdicts(self, task: Task, path: Path, wave: Sequence[int], cache: VerdictCache) -> list[Verdict]:
        questions = [judge_messages(task, path.steps[:i], path.steps[i], self.prompt) for i in wave]
        keys = [question_sha256(messages) for messages in questions]
        found = [
            SIGNAL if is_signal_step(path.steps[i]) else cache.get(path.nodes[i], key)
            for i, key in zip(wave, keys, strict=True)
        ]
        # A kept bad verdict ends the walk: nothing behind it is asked.
        known_bad = next((n for n, v in enumerate(found) if v is not None and v.label == "bad"), len(found))
        asked = {
            n: self._threads.submit(self.ask, questions[n])
            for n, v in enumerate(found[:known_bad])
            if v is None
        }
        try:
            for n, future in asked.items():
                verdict = future.result()
                cache.put(path.nodes[wave[n]], keys[n], verdict)
                found[n] = verdict
        finally:
            cache.save()
        return [verdict or UNASKED for verdict in found]

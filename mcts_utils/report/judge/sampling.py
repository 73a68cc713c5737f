"""Verdicts on a random sample of steps, half of them on good paths, kept in a folder.

Stage 2 asks only about bad paths after the fork, up to the first bad step, so its verdicts say little about good paths.
The files have stage 2's format (VerdictCache), so that an interrupted run asks only for the missing verdicts. It
computes no statistics.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import Settings
from mcts_utils.prompts import is_signal_step, judge_messages
from mcts_utils.report.judge.evidence import on_good_paths
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache, judge_name, question_sha256
from mcts_utils.search.tree import Node, Tree, nodes, path_steps, step_of
from mcts_utils.storage.layout import verdicts_path
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor, Message, Verdict

TreeKey = tuple[int, int]  # (number of the folder, index of the tree)


def draw_steps(
    trees: Iterable[tuple[TreeKey, Tree]], count: int, seed: int
) -> tuple[dict[TreeKey, list[int]], dict[str, int]]:
    """Draw steps without replacement; return node ids by tree, and the numbers of available and drawn steps.

    Half of `count` (rounded up) is drawn from the executed steps on paths with reward 1, half from all other executed
    steps; if one half has too few, all of it is taken. A larger count with the same seed contains the smaller one.
    """
    halves: dict[bool, list[tuple[TreeKey, int]]] = {True: [], False: []}
    for key, tree in trees:
        good = on_good_paths(tree)
        for node in nodes(tree):
            if node.parent is not None and node.executed and not is_signal_step(step_of(node)):
                halves[node.id in good].append((key, node.id))
    chosen: dict[TreeKey, list[int]] = {}
    counts: dict[str, int] = {}
    for on_good, size in ((True, count - count // 2), (False, count // 2)):
        name = "on_good_paths" if on_good else "on_bad_paths_only"
        random.Random(f"{seed}|{name}").shuffle(halves[on_good])
        taken = halves[on_good][:size]
        counts |= {f"{name}_in_all": len(halves[on_good]), name: len(taken)}
        for key, drawn in taken:
            chosen.setdefault(key, []).append(drawn)
    return {key: sorted(ids) for key, ids in chosen.items()}, counts


@dataclass(frozen=True)
class Question:
    """A step to be judged, and the cache of its tree."""

    cache: VerdictCache
    node: int
    messages: Sequence[Message]

    @property
    def key(self) -> str:
        """Return the key of the question in the cache."""
        return question_sha256(self.messages)


def question_about(tree: Tree, node: Node, prompt: str) -> list[Message]:
    """Return the messages with which stage 2 asks about the node's step."""
    assert node.parent is not None
    return judge_messages(tree.task, path_steps(node.parent), step_of(node), prompt)


class VerdictSampler:
    """Asks the actor of the settings, as stage 2 does. The model is loaded only if a verdict is missing."""

    def __init__(
        self, settings: Settings, folder: Path, make: Callable[[Settings], Actor] = make_actor
    ) -> None:
        self.settings, self.folder, self._make_actor = settings, folder, make
        self.model = judge_name(settings.model_name, fingerprint(settings.model_dir))
        self.requests = 0  # of this run

    def verdicts(
        self, trees: Iterable[tuple[TreeKey, Tree]], chosen: Mapping[TreeKey, Sequence[int]]
    ) -> Iterator[tuple[TreeKey, dict[int, Verdict]]]:
        """Yield the verdicts on the chosen nodes by tree, after all have been given.

        Raises:
            InputError, ActorError: there is no actor, or it fails; verdicts given before are kept.
        """
        caches: dict[TreeKey, VerdictCache] = {}
        questions: list[Question] = []
        for key, tree in trees:
            path = verdicts_path(self.folder / str(key[0]), key[1])
            cache = caches[key] = VerdictCache(path, self.model, self.settings.prompt)
            by_id = {node.id: node for node in nodes(tree)}
            for node in chosen[key]:
                question = Question(cache, node, question_about(tree, by_id[node], self.settings.prompt))
                if cache.get(node, question.key) is None:
                    questions.append(question)
        if questions:
            self._ask(questions)
        for key, cache in caches.items():
            yield key, {node: cache.used[node] for node in chosen[key]}

    def _ask(self, questions: Sequence[Question]) -> None:
        """Ask the actor all questions and keep its verdicts."""
        actor = self._make_actor(self.settings)
        judge = Judge(actor, self.settings.prompt, seed=self.settings.seed, slots=1)
        slots = self.settings.in_flight
        try:
            with ThreadPoolExecutor(slots, thread_name_prefix="judge") as threads:
                self._keep_verdicts(questions, threads, judge, slots)
        finally:
            judge.close()
            actor.close()

    def _keep_verdicts(
        self, questions: Sequence[Question], threads: ThreadPoolExecutor, judge: Judge, slots: int
    ) -> None:
        """Keep `slots` requests in flight and save each verdict as it arrives; after an error nothing more is asked."""
        in_flight: dict[Future[Verdict], Question] = {}
        remaining = iter(questions)
        while True:
            for question in remaining:
                in_flight[threads.submit(judge.ask, question.messages)] = question
                if len(in_flight) >= slots:
                    break
            if not in_flight:
                return
            for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                question = in_flight.pop(future)
                verdict = future.result()
                question.cache.put(question.node, question.key, verdict)
                question.cache.save()
                self.requests += verdict.asked

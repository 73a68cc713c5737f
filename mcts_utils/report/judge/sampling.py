"""Verdicts asked for on purpose: steps drawn at random from trees, half of them on good paths, kept in a folder.

Stage 2 asks only about bad paths behind the fork, and up to the first bad step; what it asked says little of good
paths. The files are stage 2's own kind (judge.VerdictCache), so an interrupted run asks only for the others.
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

Key = tuple[int, int]  # (number of the tree's folder, its index)


def draw(
    trees: Iterable[tuple[Key, Tree]], count: int, seed: int
) -> tuple[dict[Key, list[int]], dict[str, int]]:
    """Node ids by tree, and how many there were to draw from and were drawn.

    Half of `count` (rounded up) from the executed steps that a path with reward 1 passes, half from all others, each
    without replacement; where one half has too few, all of it is taken. A larger count with the same seed contains
    the smaller one.
    """
    halves: dict[bool, list[tuple[Key, int]]] = {True: [], False: []}
    for key, tree in trees:
        good = on_good_paths(tree)
        for node in nodes(tree):
            if node.parent is not None and node.executed and not is_signal_step(step_of(node)):
                halves[node.id in good].append((key, node.id))
    chosen: dict[Key, list[int]] = {}
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
    """One step to be judged."""

    cache: VerdictCache
    node: int
    messages: Sequence[Message]

    @property
    def key(self) -> str:
        """As the cache keeps it."""
        return question_sha256(self.messages)


def question_about(tree: Tree, node: Node, prompt: str) -> list[Message]:
    """What stage 2 asks about the node's step."""
    assert node.parent is not None
    return judge_messages(tree.task, path_steps(node.parent), step_of(node), prompt)


class VerdictSampler:
    """Asks the actor of the settings, as stage 2 does; the model is loaded only if something is not known yet."""

    def __init__(
        self, settings: Settings, folder: Path, make: Callable[[Settings], Actor] = make_actor
    ) -> None:
        self.settings, self.folder, self._make = settings, folder, make
        self.model = judge_name(settings.model_name, fingerprint(settings.model_dir))
        self.requests = 0  # of this run

    def verdicts(
        self, trees: Iterable[tuple[Key, Tree]], chosen: Mapping[Key, Sequence[int]]
    ) -> Iterator[tuple[Key, dict[int, Verdict]]]:
        """The verdicts on the chosen nodes, tree by tree, once all are there.

        Raises:
            InputError, ActorError: there is no actor, or it fails; verdicts given before that are kept.
        """
        caches: dict[Key, VerdictCache] = {}
        questions: list[Question] = []
        for key, tree in trees:
            path = verdicts_path(self.folder / str(key[0]), key[1])
            cache = caches[key] = VerdictCache(path, self.model, self.settings.prompt)
            by_id = {node.id: node for node in nodes(tree)}
            for node in chosen[key]:
                found = Question(cache, node, question_about(tree, by_id[node], self.settings.prompt))
                if cache.get(node, found.key) is None:
                    questions.append(found)
        if questions:
            self._ask(questions)
        for key, cache in caches.items():
            yield key, {node: cache.used[node] for node in chosen[key]}

    def _ask(self, questions: Sequence[Question]) -> None:
        actor = self._make(self.settings)
        judge = Judge(actor, self.settings.prompt, seed=self.settings.seed, slots=1)
        slots = self.settings.in_flight
        try:
            with ThreadPoolExecutor(slots, thread_name_prefix="asking") as threads:
                self._gather(questions, threads, judge, slots)
        finally:
            judge.close()
            actor.close()

    def _gather(
        self, questions: Sequence[Question], threads: ThreadPoolExecutor, judge: Judge, slots: int
    ) -> None:
        """Keeps the slots full, and each answer as soon as it is there. An error ends it, with nothing new asked."""
        waiting: dict[Future[Verdict], Question] = {}
        left = iter(questions)
        while True:
            for question in left:
                waiting[threads.submit(judge.ask, question.messages)] = question
                if len(waiting) >= slots:
                    break
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                question = waiting.pop(future)
                verdict = future.result()
                question.cache.put(question.node, question.key, verdict)
                question.cache.save()
                self.requests += verdict.asked

"""Verdicts on a random sample of steps, half of them on good paths, kept in a folder.

Stage 2 asks only about bad paths after the fork, up to the first bad step, so its verdicts say little about good paths.
The files have stage 2's format (VerdictCache), so that an interrupted run asks only for the missing verdicts. It
computes no statistics.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Lock

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import Settings
from mcts_utils.executors.spending import limited
from mcts_utils.executors.threads import run_tasks
from mcts_utils.prompts import is_signal_step, judge_messages
from mcts_utils.report.judge.evidence import on_good_paths
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache, judge_name, question_sha256
from mcts_utils.search.tree import Node, Tree, nodes, path_steps, step_of
from mcts_utils.storage.layout import verdicts_path
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor, Message, Verdict

TreeKey = tuple[int, int]  # (number of the folder, index of the tree)
Question = tuple[VerdictCache, int, Sequence[Message]]  # cache of the tree, node, messages


def draw_steps(
    trees: Iterable[tuple[TreeKey, Tree]], count: int, seed: int
) -> tuple[dict[TreeKey, list[int]], dict[str, int]]:
    """Draw steps without replacement; return node ids by tree, and the numbers of available and drawn steps.

    Half of `count` (rounded up) is drawn from the executed steps on paths with reward 1, half from all other executed
    steps; if one half has too few, all of it is taken. A larger count with the same seed contains the smaller one.
    """
    halves: dict[str, list[tuple[TreeKey, int]]] = {"on_good_paths": [], "on_bad_paths_only": []}
    for key, tree in trees:
        good = on_good_paths(tree)
        for node in nodes(tree):
            if node.parent is not None and node.executed and not is_signal_step(step_of(node)):
                halves["on_good_paths" if node.id in good else "on_bad_paths_only"].append((key, node.id))
    chosen: dict[TreeKey, list[int]] = {}
    counts: dict[str, int] = {}
    for (name, steps), size in zip(halves.items(), (count - count // 2, count // 2), strict=True):
        random.Random(f"{seed}|{name}").shuffle(steps)
        counts |= {f"{name}_in_all": len(steps), name: len(steps[:size])}
        for key, drawn in steps[:size]:
            chosen.setdefault(key, []).append(drawn)
    return {key: sorted(ids) for key, ids in chosen.items()}, counts


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
        self.model = judge_name(settings.model_name, fingerprint(settings.model_dir, settings.chat_template))
        self.requests = 0  # of this run

    def verdicts(
        self, trees: Iterable[tuple[TreeKey, Tree]], chosen: Mapping[TreeKey, Sequence[int]]
    ) -> dict[TreeKey, dict[int, Verdict]]:
        """Return the verdicts on the chosen nodes by tree.

        Raises:
            InputError, ActorError: there is no actor, or it fails; verdicts given before are kept.
        """
        caches: dict[TreeKey, VerdictCache] = {}
        missing: list[Question] = []
        for key, tree in trees:
            path = verdicts_path(self.folder / str(key[0]), key[1])
            tokens = self.settings.max_token_length
            cache = caches[key] = VerdictCache(path, self.model, self.settings.prompt, tokens)
            by_id = {node.id: node for node in nodes(tree)}
            for node in chosen[key]:
                messages = question_about(tree, by_id[node], self.settings.prompt)
                if cache.get(node, question_sha256(messages)) is None:
                    missing.append((cache, node, messages))
        if missing:
            self._ask(missing)
        return {key: {node: cache.used[node] for node in chosen[key]} for key, cache in caches.items()}

    def _ask(self, questions: Sequence[Question]) -> None:
        """Ask all questions and save each verdict as it arrives; after an error nothing more is asked."""
        manifest = self.folder / "manifest.json"
        with (
            closing(self._make_actor(self.settings)) as made,
            limited(self.settings, manifest, made) as actor,
        ):
            judge, lock = Judge(actor, self.settings.prompt, seed=self.settings.seed, slots=1), Lock()

            def ask(question: Question) -> None:
                cache, node, messages = question
                verdict = judge.ask(messages)
                with lock:
                    cache.put(node, question_sha256(messages), verdict)
                    cache.save()
                    self.requests += verdict.asked

            asked = run_tasks(ask, self.settings.in_flight, Event(), questions)
            with closing(judge), closing(asked):
                for _, error in asked:
                    if error is not None:
                        raise error

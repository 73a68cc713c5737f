"""The actor as judge of single steps (Section 3.1, Appendix A): one verdict per tree node, kept beside the output.

Finds the transition point of a path; knows nothing of pairs, replays or rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mcts_utils.prompts import is_signal_step, judge_messages, parse_verdict
from mcts_utils.revision.pairs import CutPoint
from mcts_utils.revision.verdict_cache import VerdictCache, question_sha256
from mcts_utils.types import Actor, ContextOverflow, Message, Step, Stopped, Task, Verdict

ASKS = 4  # the first at temperature 0, then up to three again, at temperature 1 and with other seeds
# Steps of one path that are asked about at once. Whole paths at once ask 3.6 times the verdicts and take 1.8 times as
# long where several trees are at work; they pay where one tree has all slots for itself.
WAVE = 4
UNASKED = Verdict("uncertain", "behind the first bad step", 0, True)
SIGNAL = Verdict("uncertain", "a revision signal is no step in the environment", 0, True)


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

    def first_bad(
        self, task: Task, steps: Sequence[Step], keys: Sequence[int], start: int, cache: VerdictCache
    ) -> CutPoint:
        """Return where a path is cut: at the first step from `start` on that is judged bad (t'), if any.

        "uncertain" means go on. `keys` name the steps in the cache: the node ids of a tree's path.

        Steps are asked about in waves of a fixed size, so that the same questions are asked whatever else is going on,
        and at most `wave` - 1 verdicts go beyond the first bad one.
        """
        seen: list[tuple[int, Verdict]] = []
        size = self.wave or max(1, len(steps) - start)
        for begin in range(start, len(steps), size):
            if self.stopped():
                raise Stopped
            wave = range(begin, min(begin + size, len(steps)))
            for index, verdict in zip(wave, self._verdicts(task, steps, keys, wave, cache), strict=True):
                seen.append((keys[index], verdict))
                if verdict.label == "bad":
                    return CutPoint(index, tuple(seen))
        return CutPoint(None, tuple(seen))

    def _verdicts(
        self,
        task: Task,
        steps: Sequence[Step],
        keys: Sequence[int],
        wave: Sequence[int],
        cache: VerdictCache,
    ) -> list[Verdict]:
        questions = [judge_messages(task, steps[:i], steps[i], self.prompt) for i in wave]
        hashes = [question_sha256(messages) for messages in questions]
        found = [
            SIGNAL if is_signal_step(steps[i]) else cache.get(keys[i], question)
            for i, question in zip(wave, hashes, strict=True)
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
                cache.put(keys[wave[n]], hashes[n], verdict)
                found[n] = verdict
        finally:
            cache.save()
        return [verdict or UNASKED for verdict in found]

"""The actor as judge of single steps (Section 3.1, Appendix A): one verdict per tree node, kept in a VerdictCache.

It finds the transition point of a path; it knows nothing of pairs, replays or rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from mcts_utils.prompts import is_signal_step, judge_messages
from mcts_utils.replies import parse_verdict
from mcts_utils.revision.pairs import CutPoint
from mcts_utils.revision.verdict_cache import VerdictCache, question_sha256
from mcts_utils.revision.votes import combined
from mcts_utils.rollouts.recorded import RecordedActor
from mcts_utils.types import Actor, ContextOverflow, Message, Step, Stopped, Task, Verdict

ASKS = 4  # the first at temperature 0, then up to three more, at temperature 1 and with other seeds
# Steps of one path that are asked about at once. Whole paths at once ask for 3.6 times the verdicts and take 1.8 times
# as long if several trees are at work; they pay if one tree has all slots for itself.
WAVE = 4
QUOTED = 120  # characters of an answer that did not parse
UNASKED = Verdict("uncertain", "after the first bad step", 0, True)
SIGNAL = Verdict("uncertain", "a revision signal is no step in the environment", 0, True)


class Judge:
    """Asks the actor about steps. Safe for threads, one path each."""

    def __init__(
        self,
        actor: Actor,
        prompt: str,
        *,
        seed: int = 0,
        wave: int = WAVE,
        slots: int = 16,
        votes: int = 1,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Judge with the prompt of that name (prompts.JUDGE_PROMPTS).

        Args:
            wave: steps of one path asked about at once; 0 for all.
            slots: requests in flight at most.
            votes: verdicts on each step.
            stopped: turns true when the run is being stopped.
        """
        self.actor, self.prompt, self.seed, self.wave, self.stopped = actor, prompt, seed, wave, stopped
        self.votes = votes
        self._threads = ThreadPoolExecutor(max(slots, wave), thread_name_prefix="judge")

    def close(self) -> None:
        """Wait for the requests in flight and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def ask(
        self, messages: Sequence[Message], actor: Actor | None = None, known: Sequence[Verdict] = ()
    ) -> Verdict:
        """Return the verdict on a step: what most of `votes` verdicts say. `known`: those that are there already.

        A question longer than the actor's context is "uncertain". `actor` is asked in place of the judge's, if given.

        Raises:
            ActorError: if the actor cannot answer at all.
        """
        rest = range(len(known), self.votes)
        return combined([*known[: self.votes], *(self._ask(messages, number, actor) for number in rest)])

    def _ask(self, messages: Sequence[Message], number: int, actor: Actor | None) -> Verdict:
        """Return verdict `number` on a step; if no answer parses, the step is asked about again with other seeds.

        The first answer of number 0 is greedy.
        """
        try:
            for again in range(ASKS):
                temperature, seed = float(number + again > 0), self.seed + number * ASKS + again
                answer = (actor or self.actor).sample(messages, 1, temperature, seed)[0]
                parsed = parse_verdict(answer.text)
                if parsed is not None:
                    return Verdict(parsed[0], parsed[1], again + 1, True)
        except ContextOverflow:
            return Verdict("uncertain", "the question does not fit the context", again + 1, False)
        cut = ", cut by MAX_TOKEN_LENGTH" if answer.truncated else ""
        quoted = f"{answer.text[-QUOTED:]!r}{cut}"
        return Verdict("uncertain", f"no answer parsed; the last one ends {quoted}", ASKS, False)

    def first_bad(
        self,
        task: Task,
        steps: Sequence[Step],
        keys: Sequence[int],
        start: int,
        cache: VerdictCache,
        actor: RecordedActor | None = None,
    ) -> CutPoint:
        """Return where a path is cut: at the first step from `start` on that is judged bad (t'), if any.

        Only "bad" ends the search. Steps are asked about in waves of a fixed size, so that the questions do not depend
        on timing, and at most `wave` - 1 verdicts go beyond the first bad one.

        Args:
            keys: name the steps in the cache: the node ids of a tree's path.
            actor: asked in place of the judge's. What its record holds is read from there and not from the cache, so
                that an interrupted run counts its requests.

        Raises:
            ActorError: if the actor cannot answer; the verdicts so far are kept.
            Stopped: if the run is being stopped.
        """
        seen: list[tuple[int, Verdict]] = []
        size = self.wave or max(1, len(steps) - start)
        for begin in range(start, len(steps), size):
            if self.stopped():
                raise Stopped
            wave = range(begin, min(begin + size, len(steps)))
            for index, verdict in zip(
                wave, self.verdicts(task, steps, keys, wave, cache, actor), strict=True
            ):
                seen.append((keys[index], verdict))
                if verdict.label == "bad":
                    return CutPoint(index, tuple(seen))
        return CutPoint(None, tuple(seen))

    def verdicts(
        self,
        task: Task,
        steps: Sequence[Step],
        keys: Sequence[int],
        wave: Sequence[int],
        cache: VerdictCache,
        actor: RecordedActor | None = None,
    ) -> list[Verdict]:
        """Return the verdicts on the steps with the places `wave`; new ones are asked for at once, and kept."""
        questions = [judge_messages(task, steps[:i], steps[i], self.prompt) for i in wave]
        hashes = [question_sha256(messages) for messages in questions]
        for i, messages in zip(wave, questions, strict=True):
            if actor is not None and actor.knows(messages, 1, 0.0, self.seed):
                cache.forget(keys[i])
        found = [
            SIGNAL if is_signal_step(steps[i]) else cache.get(keys[i], question, self.votes)
            for i, question in zip(wave, hashes, strict=True)
        ]
        # Nothing is asked about steps after a kept bad verdict.
        known_bad = next((n for n, v in enumerate(found) if v is not None and v.label == "bad"), len(found))
        begun = [cache.begun(keys[i], hashes[n]) for n, i in enumerate(wave)]
        asked = {
            n: self._threads.submit(self.ask, questions[n], actor, begun[n])
            for n, v in enumerate(found[:known_bad])
            if v is None
        }
        wait(asked.values())
        for n, future in asked.items():
            if not future.exception():
                found[n] = future.result()
                cache.put(keys[wave[n]], hashes[n], future.result(), begun[n])
        cache.save()
        for future in asked.values():
            future.result()  # the first failure
        return [verdict or UNASKED for verdict in found]

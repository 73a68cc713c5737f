"""Play an environment's episodes twice, interleaved and copied, and yield what that shows, verdict by verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils.envs.check import verdicts
from mcts_utils.envs.check.play import (
    NONSENSE,
    Choice,
    Played,
    RawSession,
    advance,
    again,
    begin,
    difference,
    drawn,
    play,
    said,
)
from mcts_utils.envs.check.verdicts import FAULT, NOTE, Verdict, unless
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs.base import EnvSpec
from mcts_utils.types import EnvError

COPIES = 5  # episodes that are copied half-way
CROWD = 16  # sessions whose memory is measured


@dataclass(frozen=True)
class Plan:
    """What is played."""

    episodes: int
    steps: int  # of an episode, at most
    seed: int = 0
    actions: tuple[tuple[str, ...], ...] = ()  # given episodes, of indices 0, 1, ...


class Probe:
    """One check of one server."""

    def __init__(
        self,
        http: HttpSession,
        spec: EnvSpec,
        about: Mapping[str, Any],
        split: Mapping[str, Sequence[int]],
        plan: Plan,
        count: Callable[[str], int] | None = None,
        pid: int | None = None,
    ) -> None:
        """Send nothing yet. `count` counts tokens; `pid` is the server's process, where it is known."""
        self._http, self._spec, self._plan, self._count, self._pid = http, spec, plan, count, pid
        self._about, self._split, self._offers = about, split, about.get("offers", ())
        self._open: list[RawSession] = []

    def run(self) -> Iterator[Verdict]:
        """Yield the verdicts."""
        episodes = [self._first(number) for number in range(self._plan.episodes)]
        yield from verdicts.errors(episodes)
        sound = [played for played in episodes if not played.error]
        if not sound:
            with suppress(EnvError):
                self._closed()
            return
        yield from verdicts.openings(sound, self._split)
        replay, apart = self._replayed(sound)
        yield from replayed(replay, apart, len(sound), NOTE if self._about.get("mode") == "live" else FAULT)
        copied = ""
        if "fork" in self._about["extensions"] and not replay:
            copied = self._copied(sound)
            yield unless(copied, "copy", "plays as the original does, and leaves it alone")
        yield from verdicts.rewards(sound)
        if len(sound) == len(episodes) or any(played.done for played in sound):
            yield verdicts.ends(sound, self._plan.steps)
        yield self._refusals(sound)
        yield verdicts.longest(sound, self._count)
        if not self._split:
            yield Verdict(NOTE, "split", "none: --task_ids wants a list; no task is held out")
        yield self._speed(sound)
        yield self._closed()
        yield from verdicts.modes(self._about["extensions"], str(self._about.get("mode", "")), replay, copied)

    def _session(self) -> RawSession:
        session = RawSession(self._http, self._spec)
        self._open.append(session)
        return session

    def _first(self, number: int) -> Played:
        """Return an episode's first execution: a given one in turn with a random one, where any is given."""
        pool = [index for ids in self._split.values() for index in ids]
        random.Random(self._plan.seed).shuffle(pool)
        place = number // 2 if "expert" in self._offers else number
        index = number if self._plan.actions or not pool else pool[place % len(pool)]
        rng = random.Random(f"{self._plan.seed}|{number}")
        choose: Choice = drawn(rng, "valid_actions" in self._offers, str(self._about.get("prompt", "")))
        try:
            given = self._plan.actions[number : number + 1] or [self._expert(index, number)]
            played = play(self._session(), index, again(given[0]) if given[0] else choose, self._plan.steps)
        except EnvError as error:
            return Played(index, error=said(error))
        played.given = bool(given[0])
        return played

    def _expert(self, index: int, number: int) -> Sequence[str]:
        if number % 2 or "expert" not in self._offers:
            return ()
        return [str(action) for action in self._http.get("/expert", {"data_idx": index})]

    def _replayed(self, sound: Sequence[Played]) -> tuple[str, str]:
        """Return how a replay differed ("": it did not), and how one did while another session was played beside it."""
        replay = apart = ""
        for played, other in zip(sound, [*sound[1:], sound[0]], strict=True):
            replay = replay or difference(played, self._alone(played))
            if not replay and not apart:
                apart = difference(played, self._beside(played, other))
        return replay, apart

    def _alone(self, played: Played) -> Played:
        """Return the episode in a session that has played another task before."""
        session = self._open[-1]
        return play(session, played.index, again(played.actions), len(played.actions))

    def _beside(self, played: Played, other: Played) -> Played:
        """Return the episode, with the steps of another one between its steps."""
        one, two = self._session(), self._session()
        now, beside = begin(one, played.index), begin(two, other.index)
        moves, others = again(played.actions), again(other.actions)
        while advance(one, now, moves):
            advance(two, beside, others)
        return now

    def _copied(self, sound: Sequence[Played]) -> str:
        """Return how a copy, or its original after it, differed from the first execution."""
        for played in islice((each for each in sound if len(each.results) > 1), COPIES):
            half = len(played.results) // 2
            session = self._session()
            play(session, played.index, again(played.actions), half)
            try:
                copy = session.fork()
            except EnvError as error:
                return f"index {played.index}, after {half} steps: {said(error)}"
            self._open.append(copy)
            for name, each in (("copy", copy), ("original after it", session)):
                rest = Played(played.index, played.opening)
                while advance(each, rest, again(played.actions, half)):
                    pass
                if found := difference(played, rest, half):
                    return f"the {name} differs: {found}"
        return ""

    def _refusals(self, sound: Sequence[Played]) -> Verdict:
        answers = []
        for text in NONSENSE:
            played = play(self._session(), sound[0].index, again([text]), 1)
            if played.error:
                return Verdict(FAULT, "refusals", f"nonsense is answered with an error: {played.error}")
            answers += [result.observation for result in played.results]
        earning = [
            now.observation
            for played in sound
            for before, now in zip(played.results, played.results[1:], strict=False)
            if now.reward > before.reward
        ]
        asked = "is_refusal" in self._offers
        judge: Callable[[str], bool] = lambda text: bool(self._http.post("/is_refusal", {"text": text}))  # noqa: E731
        return verdicts.refusals(answers, judge if asked else None, earning)

    def _speed(self, sound: Sequence[Played]) -> Verdict:
        """Return steps a second, and the memory of a session."""
        steps, seconds = sum(len(p.results) for p in sound), sum(p.seconds for p in sound)
        before = memory(self._pid)
        for number in range(CROWD):
            begin(self._session(), sound[number % len(sound)].index)
        after = memory(self._pid)
        used = None if before is None or after is None else f"{max(0, after - before) / CROWD / 1e6:.2f} MB"
        rate = f"{steps / max(seconds, 1e-9):.0f}"
        return verdicts.as_line("speed", {"steps a second": rate, "a session takes": used})

    def _closed(self) -> Verdict:
        """Close all sessions and return whether the server has none left."""
        faults = []
        for session in self._open:
            try:
                session.close()
            except EnvError as error:
                faults.append(said(error))
        if faults and "sessions" in self._about:
            return Verdict(FAULT, "closing", f"{len(faults)} of {len(self._open)} sessions: {faults[0]}")
        left = self._http.get("/about").get("sessions") if "sessions" in self._about else None
        count = len(self._open)
        fault = f"{left} of {count} sessions are open after they were closed" if left else ""
        return unless(fault, "closing", f"{count} sessions were opened and closed")


def replayed(replay: str, apart: str, episodes: int, level: str) -> Iterator[Verdict]:
    """Yield whether openings and answers came back (`level`: if not), and whether sessions are independent."""
    opening = replay if ", opening:" in replay else ""
    yield unless(opening, "opening", "equal after each reset(index)", level)
    if not opening:
        yield unless(replay, "replay", f"text, reward and done are equal in {episodes} episodes", level)
    if not replay:
        disturbed = f"two at once disturb each other: {apart}" if apart else ""
        yield unless(disturbed, "sessions", "do not disturb each other")


def memory(pid: int | None) -> int | None:
    """Return the resident bytes of a process; None where they are unknown."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return None


def timed(started: float) -> str:
    """Return the seconds since then."""
    return f"{time.monotonic() - started:.1f} s"

"""Say what played episodes show about an environment: one verdict a line. It sends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts_utils.envs.check.play import Played, short

OK, NOTE, FAULT = "ok", "note", "FAULT"


@dataclass(frozen=True)
class Verdict:
    """One line."""

    level: str  # OK, NOTE or FAULT
    topic: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<5}  {self.topic:<9}  {self.text}"


def unless(fault: str, topic: str, text: str, level: str = FAULT) -> Verdict:
    """Return a fault (or a verdict of another level), or where there is none that all is well."""
    return Verdict(level, topic, fault) if fault else Verdict(OK, topic, text)


def errors(episodes: Sequence[Played]) -> list[Verdict]:
    """Return each error once, with the first episode and step that it ended."""
    found: dict[str, Verdict] = {}
    for played in episodes:
        if played.error:
            where = f"index {played.index}, after {len(played.results)} steps"
            verdict = Verdict(FAULT, "errors", f"{where}: {played.error}")
            found.setdefault(re.sub(r"\d+", "#", played.error), verdict)
    return list(found.values()) or [Verdict(OK, "errors", f"none in {len(episodes)} episodes")]


def ends(episodes: Sequence[Played], most: int) -> Verdict:
    """Return the number of episodes that ended by themselves."""
    done = [len(played.results) for played in episodes if played.done]
    if not done:
        text = f"in {len(episodes)} episodes of at most {most} steps"
        if any(played.given for played in episodes):
            return Verdict(FAULT, "done", f"never, {text}")
        return Verdict(NOTE, "done", f"not seen in random play, {text}: give expert(index) or --actions")
    lengths = f"after {min(done)} to {max(done)} steps" if min(done) < max(done) else f"after {done[0]} steps"
    return Verdict(OK, "done", f"{len(done)} of {len(episodes)} episodes, {lengths}")


def rewards(episodes: Sequence[Played]) -> list[Verdict]:
    """Return what rewards were given, when, and whether `reward_of` may be stated wrongly."""
    scores = [[result.reward for result in played.results] for played in episodes if played.results]
    final = [each[-1] for each in scores]
    if not final:
        return [Verdict(NOTE, "rewards", "none seen")]
    changed = sum(score != before for each in scores for before, score in zip(each, each[1:], strict=False))
    when = "also before the end" if any(len(set(each[:-1])) > 1 for each in scores) else "at the end or never"
    text = f"scores of episodes from {min(final):g} to {max(final):g}, given {when} ({changed} changes)"
    lines = [Verdict(OK if max(final) > min(final) else NOTE, "rewards", text)]
    own = [[value for value in played.own_rewards if isinstance(value, (int, float))] for played in episodes]
    flat = [value for each in own for value in each]
    if any(value < 0 for value in flat):
        text = f"negative ones are given, down to {min(flat):g}; the score is mapped"
        lines.append(Verdict(NOTE, "rewards", text))
    rising = all(each == sorted(each) for each in own)
    if rising and any(a == b > 0 for each in own for a, b in zip(each, each[1:], strict=False)):
        text = "they never fall and are repeated: if `step` returns the score so far, state reward_of = 'episode'"
        lines.append(Verdict(NOTE, "rewards", text))
    if not any(played.given for played in episodes) and max(final) == 0:
        lines.append(Verdict(NOTE, "rewards", "random play earned nothing: give expert(index) or --actions"))
    return lines


def openings(episodes: Sequence[Played], split: Mapping[str, Sequence[int]]) -> list[Verdict]:
    """Return whether tasks can be told apart by their openings, and whether a test opening is one of training."""
    seen = {played.index: played.opening for played in episodes if played.opening}
    lines = []
    if len(seen) > 1 and len(set(seen.values())) == 1:
        text = f"the same for all {len(seen)} indices: tasks are told apart by index"
        lines.append(Verdict(NOTE, "opening", text))
    train = {seen[index]: index for index in split.get("train", ()) if index in seen}
    same = [(train[seen[index]], index) for index in split.get("test", ()) if seen.get(index) in train]
    if same and len(set(seen.values())) > 1:
        text = f"test index {same[0][1]} opens as training index {same[0][0]} does"
        lines.append(Verdict(NOTE, "split", text))
    return lines


def refusals(answers: Sequence[str], judge: Callable[[str], bool] | None, earning: Sequence[str]) -> Verdict:
    """Return whether refusals are recognised, or the pattern of an `is_refusal`.

    Args:
        answers: observations after nonsense.
        judge: the environment's is_refusal.
        earning: observations after steps that raised the score.
    """
    if judge is None:
        start = os.path.commonprefix([answer.lstrip() for answer in answers])
        if len(start.strip()) < 3 or any(text.lstrip().startswith(start) for text in earning):
            text = f"no is_refusal, and no beginning of their own: {short(answers[0])}"
            return Verdict(NOTE, "refusals", text)
        pattern = f"return re.match({re.escape(start)!r}, text) is not None"
        return Verdict(NOTE, "refusals", f"no is_refusal; proposed: {pattern}")
    if missed := [answer for answer in answers if not judge(answer.lstrip())]:
        return Verdict(FAULT, "refusals", f"the answer to nonsense is not recognised: {short(missed[0])}")
    if wrong := [text for text in earning if judge(text.lstrip())]:
        text = f"a step that raised the score counts as refused: {short(wrong[0])}"
        return Verdict(FAULT, "refusals", text)
    return Verdict(OK, "refusals", f"recognised in all {len(answers)} answers to nonsense")


def modes(extensions: Sequence[str], stated: str, replay: str, copy: str) -> list[Verdict]:
    """Return the mode that holds, and what is missing for the better ones.

    Args:
        replay: how a replay differed; "" if it did not.
        copy: how a copy differed.
    """
    best = "live" if replay else "replay" if copy or "fork" not in extensions else "fork"
    lines = []
    if replay:
        lines.append(Verdict(NOTE, "mode", "for replay: the same answers after reset(index); see above"))
    if best != "fork":
        copies = "fork" in extensions
        need = "a copy that plays as the original; see above" if copies else "copy(), or save() and load()"
        lines.append(Verdict(NOTE, "mode", f"for fork: {need}"))
    order = ("live", "replay", "fork")
    known = stated in order
    worse = known and order.index(stated) > order.index(best)
    fault = f"{best}, but the server offers {stated}: state search_mode = {best!r}" if worse else ""
    return [*lines, unless(fault, "mode", stated if known else best)]


def longest(episodes: Sequence[Played], count: Callable[[str], int] | None) -> Verdict:
    """Return the longest observation; `count` counts its tokens."""
    texts = [text for p in episodes for text in (p.opening, *(result.observation for result in p.results))]
    text = max(texts, key=len, default="")
    about = f"about {len(text) // 4} tokens (set MODEL_DIR to count them)"
    tokens = f"{count(text)} tokens" if count else about
    return Verdict(OK, "longest", f"observation of {len(text)} characters, {tokens}")


def as_line(name: str, values: Mapping[str, Any]) -> Verdict:
    """Return figures that were measured; None is unknown."""
    known = ", ".join(f"{label} {value}" for label, value in values.items() if value is not None)
    return Verdict(OK, name, known)

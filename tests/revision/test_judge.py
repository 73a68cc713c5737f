"""The judge: strict parsing, asking again, one verdict per node, kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_utils.revision.judge import ASKS, Judge
from mcts_utils.revision.pairs import CutPoint, Trajectory
from mcts_utils.revision.verdict_cache import VerdictCache
from mcts_utils.storage.files import read_json
from mcts_utils.types import ActorError, ContextOverflow, Message, Step, Task
from tests.helpers.hand_trees import Scripted, replies, strict_judge

TASK = Task("textcraft", 3, "textcraft:0", "Goal: craft x.")


def path_of(observations: list[str]) -> Trajectory:
    steps = [Step(r, f"act {i}", observations[i], 0.0) for i, r in enumerate(replies(observations))]
    return Trajectory(0, tuple(range(1, len(steps) + 1)), tuple(steps), 0.0)


def cache_at(folder: Path, model: str = "m", prompt: str = "brief") -> VerdictCache:
    return VerdictCache(folder / "v.json", model, prompt)


def first_bad(judge: Judge, path: Trajectory, start: int, cache: VerdictCache) -> CutPoint:
    """Where the judge cuts a path of a tree."""
    return judge.first_bad(TASK, path.steps, path.nodes, start, cache)


def test_first_bad_step_ends_the_walk_and_asks_nothing_far_behind_it(tmp_path: Path) -> None:
    actor = Scripted(strict_judge)
    judge = Judge(actor, "brief", wave=2)
    path = path_of(["Got 1 a", "Got 1 b", "Got 1 c", "Could not find d", "Got 1 e", "Got 1 f", "Got 1 g"])
    cut = first_bad(judge, path, 1, cache_at(tmp_path))
    assert cut.step == 3
    assert [node for node, _ in cut.verdicts] == [2, 3, 4]
    assert [v.label for _, v in cut.verdicts] == ["good", "good", "bad"]
    # start 1, waves of two: steps 1, 2 and 3, 4
    assert sorted(text.count("Current action: act") for text, *_ in actor.asked) == [1] * 4
    assert all(temperature == 0 for _, temperature, _ in actor.asked)
    judge.close()


def test_a_whole_path_can_be_asked_about_at_once(tmp_path: Path) -> None:
    actor = Scripted(strict_judge)
    path = path_of(["Got 1 a", "Could not find d", "Got 1 c", "Got 1 e", "Got 1 f", "Got 1 g"])
    cuts = []
    for wave, asked in ((0, 5), (4, 4)):  # from step 1 on
        judge = Judge(actor, "brief", wave=wave)
        actor.asked.clear()
        cuts.append(first_bad(judge, path, 1, cache_at(tmp_path / str(wave))))
        assert len(actor.asked) == asked
        judge.close()
    assert cuts[0] == cuts[1]
    assert cuts[0].step == 1


def test_verdicts_of_answers_of_another_length_are_asked_for_again(tmp_path: Path) -> None:
    actor = Scripted(strict_judge)
    judge = Judge(actor, "brief", wave=1)
    path = path_of(["Got 1 a", "Could not find d"])
    for tokens, asked in ((256, 2), (256, 0), (8, 2), (8, 0), (0, 0), (256, 2)):
        actor.asked.clear()
        first_bad(judge, path, 0, VerdictCache(tmp_path / "v.json", "m", "brief", tokens))
        assert len(actor.asked) == asked
    assert "max_token_length" not in (tmp_path / "v.json").read_text()
    judge.close()


def test_a_step_is_asked_once_for_all_pairs_and_all_runs(tmp_path: Path) -> None:
    actor = Scripted(strict_judge)
    judge = Judge(actor, "brief", wave=1)
    path = path_of(["Got 1 a", "Got 1 b", "Could not find d"])
    cache = cache_at(tmp_path)
    first = first_bad(judge, path, 0, cache)
    assert first_bad(judge, path, 1, cache).step == first.step == 2
    assert len(actor.asked) == 3
    again = cache_at(tmp_path)  # a second run
    assert first_bad(judge, path, 0, again) == first
    assert len(actor.asked) == 3
    assert again.counts() == {"good": 2, "bad": 1, "uncertain": 0, "unparsed": 0, "requests": 0}
    other = first_bad(judge, path, 0, cache_at(tmp_path, model="another"))
    assert other.step == 2
    assert len(actor.asked) == 6  # another model's verdicts are not these
    judge.close()


def test_a_kept_verdict_counts_only_for_the_same_question(tmp_path: Path) -> None:
    actor = Scripted(strict_judge)
    judge = Judge(actor, "brief")
    first_bad(judge, path_of(["Got 1 a"]), 0, cache_at(tmp_path))
    changed = first_bad(judge, path_of(["Could not find a"]), 0, cache_at(tmp_path))
    assert changed.step == 0
    assert len(actor.asked) == 2
    judge.close()


@pytest.mark.parametrize(
    "answer", ["Bad", "Judgment: Good or Bad", "Judgment: Bad. It is not good", "Judgment: Bad\nor so", ""]
)
def test_what_does_not_parse_is_asked_again_and_then_uncertain(tmp_path: Path, answer: str) -> None:
    actor = Scripted(lambda messages, temperature, seed: answer)
    judge = Judge(actor, "brief", seed=5)
    cache = cache_at(tmp_path)
    cut = first_bad(judge, path_of(["Got 1 a"]), 0, cache)
    assert cut.step is None
    assert cut.verdicts[0][1].label == "uncertain"
    assert not cut.verdicts[0][1].parsed
    assert cache.counts() == {"good": 0, "bad": 0, "uncertain": 1, "unparsed": 1, "requests": ASKS}
    assert [temperature for _, temperature, _ in actor.asked] == [0, 1, 1, 1]
    assert len({seed for *_, seed in actor.asked}) == ASKS
    judge.close()


def test_an_answer_that_parses_on_the_second_ask_counts(tmp_path: Path) -> None:
    actor = Scripted(lambda messages, temperature, seed: "r\nJudgment: Bad" if temperature else "?")
    judge = Judge(actor, "brief")
    cut = first_bad(judge, path_of(["Got 1 a"]), 0, cache_at(tmp_path))
    assert cut.step == 0
    assert cut.verdicts[0][1].asked == 2
    judge.close()


def test_a_question_too_long_is_uncertain_and_a_dead_actor_raises_and_keeps_what_came(
    tmp_path: Path,
) -> None:
    def answer(messages: list[Message], temperature: float, seed: int | None) -> str:
        if "act 1\nCurrent" in messages[-1].content:
            raise ContextOverflow("too long")
        if "act 2\nCurrent" in messages[-1].content:
            raise ActorError("endpoint is dead")
        return "r\nJudgment: Good"

    judge = Judge(Scripted(answer), "brief", wave=1)  # type: ignore[arg-type]
    with pytest.raises(ActorError, match="dead"):
        first_bad(judge, path_of(["a", "b", "c"]), 0, cache_at(tmp_path))
    kept = read_json(tmp_path / "v.json")["verdicts"]
    assert {node: (row["label"], row["parsed"]) for node, row in kept.items()} == {
        "1": ("good", True),
        "2": ("uncertain", False),
    }
    judge.close()


def test_a_damaged_cache_costs_requests_only(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"model": "m", "verd')
    judge = Judge(Scripted(strict_judge), "brief")
    assert first_bad(judge, path_of(["Could not find a"]), 0, cache_at(tmp_path)).step == 0
    judge.close()

"""Several verdicts a step, how far they agree, and asking the judge again from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import path_collection
from mcts_utils.revision.judge import ASKS, Judge
from mcts_utils.revision.verdict_cache import VerdictCache
from mcts_utils.revision.votes import agreement, combined, patterns
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.formats.manifest import Agreement
from mcts_utils.types import ActorError, Message, Verdict
from tests.helpers.hand_trees import DOOR, Scripted, strict_judge
from tests.revision.test_judge import first_bad, path_of

Stage = Callable[..., int]
Answer = Callable[..., str]


def voted(*labels: Any) -> list[Verdict]:
    """Verdicts of these labels; ?: no answer parsed."""
    return [
        Verdict(
            "uncertain" if label == "?" else label, "?" if label == "?" else f"{label} {i}", 1, label != "?"
        )
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("labels", "label", "reason", "parsed"),
    [
        (["good"], "good", "good 0", True),
        (["good", "bad", "bad"], "bad", "bad 1", True),
        (["good", "bad"], "uncertain", "a tie: 1 good, 1 bad", True),
        (["bad", "good", "uncertain"], "uncertain", "uncertain 2", True),
        (["?", "bad", "?"], "bad", "bad 1", True),  # an answer that does not parse is no vote
        (["?", "?", "?"], "uncertain", "?", False),
    ],
)
def test_the_label_of_most_verdicts_counts_and_a_tie_is_uncertain(labels, label, reason, parsed):
    found = combined(voted(*labels))
    assert (found.label, found.reason, found.parsed) == (label, reason, parsed)
    assert found.asked == sum(vote.asked for vote in voted(*labels))


def test_agreement_is_the_share_of_unanimous_steps_and_fleiss_kappa():
    assert agreement(patterns([Verdict("good", "", 1, True)])) is None
    # Two steps agree and two do not: mean agreement 2/3, by chance 7/12 x 7/12 + 5/12 x 5/12.
    rows = [["good"] * 3, ["bad"] * 3, ["good", "good", "bad"], ["good", "good", "bad"]]
    chance = (49 + 25) / 144
    expected = Agreement(
        votes=3, steps=4, unanimous=0.5, fleiss_kappa=round((2 / 3 - chance) / (1 - chance), 4)
    )
    assert agreement(patterns(combined(voted(*row)) for row in rows)) == expected
    same = agreement(patterns([combined(voted("good", "good"))]))
    assert same == Agreement(votes=2, steps=1, unanimous=1.0, fleiss_kappa=None)


def by_seed(messages: Sequence[Message], temperature: float, seed: int | None) -> str:
    """Verdict 0 and its like are strict; every second one calls all good."""
    return "So.\nJudgment: Good" if (seed or 0) // ASKS % 2 else strict_judge(messages, temperature, seed)


def test_votes_have_seeds_of_their_own_and_only_missing_ones_are_asked_for(tmp_path):
    path = path_of(["Got 1 a", "Could not find d"])
    asked: list[list[tuple[float, int | None]]] = []
    for votes in (1, 3, 3, 2):
        actor = Scripted(by_seed)
        judge, cache = Judge(actor, "brief", votes=votes), VerdictCache(tmp_path / "v.json", "m", "brief")
        cut = first_bad(judge, path, 0, cache)
        judge.close()
        asked.append(sorted((temperature, seed) for _, temperature, seed in actor.asked))
        assert cache.asked == len(actor.asked)
        assert cut.step == (None if votes == 2 else 1)  # 2 votes: a tie
    assert asked == [[(0.0, 0)] * 2, [(1.0, 4), (1.0, 4), (1.0, 8), (1.0, 8)], [], []]
    kept = read_json(tmp_path / "v.json")["verdicts"]["2"]
    assert (kept["label"], [vote["label"] for vote in kept["votes"]]) == ("bad", ["bad", "good", "bad"])


def test_a_run_with_votes_reports_their_agreement(
    stage: Stage, actor: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    actor.answer = by_seed
    assert stage() == 0
    plain, single = (Path("out/textcraft_centric.jsonl").read_bytes(), len(actor.asked))
    assert "agreement" not in read_json(Path("out/textcraft_centric.manifest.json"))["counts"]
    assert not list(Path("out").glob("*spent*"))
    monkeypatch.setenv("JUDGE_VOTES", "3")
    assert stage() == 0
    assert len(actor.asked) == 3 * single
    manifest = read_json(Path("out/textcraft_centric.manifest.json"))
    found = manifest["counts"]["agreement"]
    assert (
        found["votes"] == 3
        and 0 < found["unanimous"] < 1
        and manifest["settings"]["judge"] == "scripted votes 3"
    )
    assert (
        f"3 verdicts a step: unanimous on {found['unanimous']:.1%} of {found['steps']} steps"
        in capsys.readouterr().out
    )
    assert Path("out/textcraft_centric.jsonl").read_bytes() == plain  # two of three are strict
    assert stage(data_type="verdicts") == 0
    assert len(Path("out/textcraft_verdicts.jsonl").read_text().splitlines()) > 2


def rejudge(trees: Path, *flags: str) -> int:
    return path_collection.main(["--input_dir", str(trees), "--output_dir", "out", "--rejudge", *flags])


def test_the_judge_is_asked_again_from_disk_and_what_changes_is_said(
    stage: Stage,
    trees: Path,
    actor: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rejudge(trees) == 2
    assert "--rejudge: out holds no verdicts on, or records of, the trees" in capsys.readouterr().err
    assert stage() == 0
    rows, before = Path("out/textcraft_centric.jsonl").read_bytes(), len(actor.asked)
    old = read_json(Path(f"out/verdicts/verdicts_{DOOR}.json"))
    assert rejudge(trees) == 0  # no environment server is named
    assert len(actor.asked) == 2 * before
    records = len(rows.splitlines())
    assert f"differences: none; records: {records} kept, 0 changed." in capsys.readouterr().out

    actor.answer = ends_after(3, lambda *_: "No.\nJudgment: Bad")
    assert rejudge(trees) == 2  # the endpoint is gone
    assert read_json(Path(f"out/verdicts/verdicts_{DOOR}.json")) == old
    actor.asked.clear()
    actor.answer = lambda *_: "No.\nJudgment: Bad"
    assert rejudge(trees) == 0
    assert len(actor.asked) == before - 3  # nothing was asked twice
    said = capsys.readouterr().out
    assert " good to bad" in said and " changed. Without --rejudge" in said
    manifest = read_json(Path("out/textcraft_rejudge.manifest.json"))
    counts = manifest["counts"]
    assert (
        counts["kept"] + counts["changed"] == records
        and counts["changed"]
        and counts["changes"]["good to bad"]
    )
    assert Path("out/textcraft_centric.jsonl").read_bytes() == rows  # it executes nothing
    assert not Path("out/verdicts/rejudge").exists()
    aside = list(Path("out/verdicts").glob(f"scripted_*/verdicts_{DOOR}.json"))
    assert len(aside) == 1 and read_json(aside[0]) == old
    actor.asked.clear()
    assert stage() == 0 and not actor.asked  # the records are made again, from the new verdicts
    assert Path("out/textcraft_centric.jsonl").read_bytes() != rows


def ends_after(most: int, answer: Answer) -> Answer:
    """An endpoint that is gone after so many answers."""
    left = iter(range(most))

    def limited(*args: Any) -> str:
        if next(left, None) is None:
            raise ActorError("gone")
        return answer(*args)

    return limited


def test_verdicts_that_were_set_aside_are_found_by_their_judge(
    stage: Stage, trees: Path, actor: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage() == 0
    rows = Path("out/textcraft_centric.jsonl").read_bytes()
    actor.answer = lambda *_: "Yes.\nJudgment: Good"
    monkeypatch.setenv("MODEL_NAME", "another")
    assert rejudge(trees) == 0
    monkeypatch.setenv("MODEL_NAME", "scripted")
    actor.asked.clear()
    assert stage() == 0 and not actor.asked
    assert Path("out/textcraft_centric.jsonl").read_bytes() == rows


def test_what_does_not_go_with_asking_again_is_one_line(trees, actor, capsys):
    for flags in (["--data_type", "good"], ["--revise", "0"], ["--verify", "x"]):
        assert rejudge(trees, *flags) == 2
        assert (
            "--rejudge goes with --data_type centric --revise 1, and without --verify"
            in capsys.readouterr().err
        )


def test_a_tree_that_is_not_the_records_is_named(stage, trees, actor, capsys):
    assert stage() == 0
    tree = read_json(trees / f"search_results_{DOOR}.json")
    write_json(trees / f"search_results_{DOOR}.json", tree | {"error": "another"})
    assert rejudge(trees) == 2
    assert (
        "is not the tree that the records in out/textcraft_centric.jsonl were made from"
        in capsys.readouterr().err
    )

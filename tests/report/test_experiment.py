"""The experiment's report on a run of four goals that is made up here: its numbers by hand, its tables and pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from mcts_utils.evaluation.summary import summarise as score
from mcts_utils.report.experiment.__main__ import main, summarise
from mcts_utils.report.experiment.cells import Cells, read_plan
from mcts_utils.report.experiment.contrasts import contrast, verdict, with_adjusted_p
from mcts_utils.report.experiment.figures import ablation, solved
from mcts_utils.report.experiment.plots import png
from mcts_utils.report.experiment.tables import document
from mcts_utils.storage.files import read_json, write_json, write_jsonl
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.episode import EpisodeFile
from mcts_utils.storage.layout import episode_path
from mcts_utils.types import Step, Task
from tests.helpers.run_files import PROTOCOL, finished_episode

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "Could not find stick"
# What an episode does, as letters: one action each, capitals are refused. "+" at the end: the goal is reached.
IDLE, LOOP, DIRECT, GOOD = "aBBB", "abab", "cD+", "cde+"


# Even goals are made of what can be got, odd ones need something that is crafted first.
OPENINGS = (
    "Crafting commands:\ncraft 1 x using 1 a\n\nGoal: craft x.",
    "Crafting commands:\ncraft 1 x using 1 a\ncraft 1 a using 2 b\n\nGoal: craft x.",
)


def episode(index: int, play: str) -> EpisodeFile:
    """An episode file as stage 4 writes it."""
    reward = float(play.endswith("+"))
    task = Task("textcraft", index, f"textcraft:{index}", OPENINGS[index % 2])
    steps = [
        Step(f"Action: get {x}", f"get {x}", REFUSED if x.isupper() else f"Got {x}", 0.0)
        for x in play.rstrip("+")
    ]
    return finished_episode(task, steps, reward)


def evaluated(run: Path, name: str, plays: Sequence[str], mode: str = "main", first: int = 0) -> Path:
    """A finished evaluation of one model."""
    folder = run / "test_result/textcraft" / f"tiny_actor_{name}{'_revise' if mode == 'revise' else ''}"
    episodes = [episode(first + i, play) for i, play in enumerate(plays)]
    for found in episodes:
        write_json(episode_path(folder, found.task.index), found)
    cost = {"seconds": 10.0, "tokens": {"calls": 4, "prompt_tokens": 100, "completion_tokens": 20}}
    write_json(folder / "summary.json", {**plain(score(episodes, replace(PROTOCOL, mode=mode), {})), **cost})
    manifest(folder / "manifest.json", {})
    return folder


def manifest(path: Path, counts: dict[str, Any], code: str = "abc1234", **more: Any) -> None:
    """A stage's manifest."""
    tokens = {"calls": 5, "prompt_tokens": 1000, "completion_tokens": 200}
    found = {
        "stage": "any",
        "code_revision": code,
        "settings": {},
        "outputs": [],
        "counts": counts,
        "tokens": tokens,
    }
    write_json(path, {**found, "seconds": 7.0, **more})


def made(run: Path, arm: str, seed: int, iteration: int, cuts: Sequence[int] = ()) -> None:
    """What trained one model: a record for each cut (step from 0 that was judged bad), and one good record."""
    folder = run / f"seed_{seed}" / arm / f"iteration_{iteration}"
    rows = [{"lineage": {"verdicts": [{"label": "bad"}], "cut_step": cut}} for cut in cuts]
    write_jsonl(folder / "records/textcraft_centric.jsonl", rows)
    manifest(
        folder / "records/textcraft_centric.manifest.json",
        {"pairs": 9, "written": len(rows), "dropped": {"duplicate": 3}},
        settings={"data_type": "centric"},
        outputs=[{"path": "textcraft_centric.jsonl", "sha256": ""}],
    )
    manifest(
        folder / "model/manifest.json",
        {"rows": {"revision": len(rows), "good": 1}, "dropped": {}},
        tokens={"revision": {"input": 50, "trained": 20}, "good": {"input": 10, "trained": 5}},
    )
    searched = folder if iteration > 1 else run / f"seed_{seed}" / "shared"
    counts = {"trees": 6, "failed": 0, "nodes": 60, "mean_leaf_reward": 0.25}
    manifest(searched / "mcts_result/textcraft/tiny_actor/manifest.json", counts)


def make_run(run: Path) -> Path:
    """Two seeds; agent_r for two iterations (seed 1 has the first only), direct for one, and one ablation."""
    arms = {"direct": 1, "agent_r": 2, "agent_r_uncleaned": 1}
    described = {
        name: {"data": [["good", []]], "config": "tiny_actor", "iterations": n} for name, n in arms.items()
    }
    write_json(run / "arms.json", {"seeds": [0, 1], "iterations": 2, "arms": described})
    evaluated(run, "base", [IDLE, IDLE, IDLE, GOOD])
    evaluated(run, "base", [IDLE, IDLE, IDLE], "revise")
    for seed in (0, 1):
        evaluated(run, f"direct_s{seed}_i1", [DIRECT, LOOP, IDLE, GOOD])
        evaluated(run, f"agent_r_uncleaned_s{seed}_i1", [LOOP, LOOP, LOOP, GOOD])
    evaluated(run, "agent_r_s0_i1", [GOOD, DIRECT, LOOP, GOOD])
    evaluated(run, "agent_r_s1_i1", [GOOD, LOOP, IDLE, GOOD])
    evaluated(run, "agent_r_s0_i1", [GOOD, GOOD, LOOP], "revise")
    evaluated(run, "agent_r_s0_i2", [GOOD, GOOD, GOOD, GOOD])
    made(run, "agent_r", 0, 1, cuts=[0, 2])
    made(run, "agent_r", 1, 1, cuts=[3, 3])
    made(run, "agent_r", 0, 2, cuts=[1])
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that a test may spoil."""
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote of such a run; the run is beside it."""
    folder = tmp_path_factory.mktemp("experiment")
    assert main([str(make_run(folder / "run")), "--output", str(folder / "results")]) == 0
    return folder / "results"


@pytest.fixture(scope="module")
def summary(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(report / "summary.json")
    return found


def test_the_numbers_of_an_iteration_are_those_of_its_episodes(summary: dict[str, Any]) -> None:
    first, second = summary["arms"]["agent_r"]["iterations"]
    # By goal over both seeds: 1, 1/2, 0, 1.
    assert first["success_rate"] == 2.5 / 4
    assert first["n"] == 4 and first["seeds"] == [0, 1]
    assert 0 < first["ci95"][0] < 2.5 / 4 < first["ci95"][1] <= 1
    assert first["by_seed"]["success_rate"] == {"0": 0.75, "1": 0.5}
    # aBBB repeats an action twice; abab a pair once. One of 8 episodes is the first, two are the second.
    assert first["repeats"] == first["loops"]["1"] == 2 / 8
    assert first["loops"]["2"] == 2 / 8
    # aBBB (goal 2, seed 1) is refused at its second action. So is cD+, but that episode did not fail.
    assert (first["revision_length"], first["revision_length_n"]) == (2, 1)
    assert first["recovery_rate"] == pytest.approx(2 / 3)
    assert first["recovery_seeds"] == [0] and first["recovery_n"] == 3
    assert (second["success_rate"], second["seeds"], second["revision_length"]) == (1.0, [0], None)
    assert 0.3 < second["ci95"][0] < 1 == second["ci95"][1]  # four of four goals are no certainty
    assert second["recovery_rate"] is None
    assert summary["base"]["success_rate"] == 0.25 and summary["base"]["recovery_rate"] == 0
    assert summary["command"] == "bash scripts/experiment.sh" and summary["code"] == "abc1234"


def test_what_made_the_models_is_counted_over_seeds(summary: dict[str, Any]) -> None:
    first, second = (row["made"] for row in summary["arms"]["agent_r"]["iterations"])
    # Cut at step 0 means that the first action was judged bad: length 1. (1 + 3 + 4 + 4) / 4.
    assert first["judged_revision_length"] == {"mean": 3.0, "n": 4}
    assert first["rows"] == {"revision": 2, "good": 1} and second["rows"] == {"revision": 1, "good": 1}
    assert first["records"]["centric"]["dropped"] == {"duplicate": 3}
    assert first["search"]["trees"] == second["search"]["trees"] == 6
    assert first["seconds"] == {"search": 14, "records": 14, "train": 14, "evaluate": 50 - 20}
    assert first["tokens_per_epoch"] == {"input": 60, "trained": 25}


def rows_of(summary: dict[str, Any], family: str, measure: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {
        (row["before"], row["after"], row["iteration"]): row
        for row in summary["comparisons"]
        if (row["family"], row["measure"]) == (family, measure)
    }


def test_comparisons_are_paired_over_goals_and_over_seeds_that_both_have(summary: dict[str, Any]) -> None:
    arms = rows_of(summary, "arms", "success_rate")
    assert list(arms) == [("direct", "agent_r", 1)]  # direct has no second iteration
    row = arms["direct", "agent_r", 1]
    # agent_r 1, 1/2, 0, 1 by goal; direct 1, 0, 0, 1.
    assert row["difference"] == 0.5 / 4 and (row["wins"], row["losses"], row["ties"]) == (1, 0, 3)
    assert row["by_seed"] == {"0": 0.25, "1": 0.0} and row["seeds"] == [0, 1]
    assert row["settles_worth"] is False  # four goals settle nothing
    base = rows_of(summary, "base", "success_rate")
    assert base["base", "agent_r", 2]["difference"] == 0.75 and base["base", "agent_r", 2]["seeds"] == [0]
    assert base["base", "agent_r", 1]["by_seed"] == {"0": 0.5, "1": 0.25}
    assert list(rows_of(summary, "base", "recovery_rate")) == [("base", "agent_r", 1)]
    (ablated,) = rows_of(summary, "ablations", "success_rate").values()
    assert (ablated["before"], ablated["difference"]) == ("agent_r_uncleaned", 1.5 / 4)
    for family in ("arms", "base", "ablations"):
        rows = list(rows_of(summary, family, "success_rate").values())
        assert all(row["p"] <= row["p_holm"] <= 1 for row in rows)


def test_an_iteration_that_only_one_arm_has_is_not_compared(run: Path) -> None:
    cells = Cells(run, read_plan(run))
    assert contrast(cells, "success_rate", "direct", "agent_r", 2) is None
    assert contrast(cells, "recovery_rate", "direct", "agent_r", 1) is None


@pytest.mark.parametrize(
    ("low", "high", "seeds", "word"),
    [
        (0.06, 0.10, (0.07, 0.09), "higher"),
        (0.01, 0.04, (0.02, 0.03), "higher, by less than 5 points"),
        (0.02, 0.10, (0.13, -0.01), "higher, but not with every seed"),
        (-0.12, -0.06, (-0.08, -0.1), "lower"),
        (-0.03, 0.04, (0.0, 0.01), "within 5 points"),
        (-0.03, 0.09, (0.02, 0.04), "open"),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(low: float, high: float, seeds: Any, word: str) -> None:
    row = {"difference_ci95": [low, high], "detectable": 0.04, "sd": 0.3, "by_seed": dict(enumerate(seeds))}
    assert verdict(row) == word


@pytest.mark.parametrize(
    ("said", "p", "word"),
    [
        ("higher", 0.01, "higher"),
        ("higher", 0.3, "higher; not after Holm"),
        ("lower, but not with every seed", 0.051, "lower, but not with every seed; not after Holm"),
        ("open", 0.8, "open"),
        ("within 5 points", 0.8, "within 5 points"),
    ],
)
def test_a_difference_that_the_adjusted_p_does_not_bear_out_is_called_so(
    said: str, p: float, word: str
) -> None:
    assert with_adjusted_p({"verdict": said, "p": 0.01}, p) == {"verdict": word, "p": 0.01, "p_holm": p}
    assert with_adjusted_p({"p": 0.01}, p) == {"p": 0.01, "p_holm": p}  # repeats have no verdict


@pytest.mark.slow
def test_what_is_not_there_is_named_and_shown_as_a_dash(run: Path) -> None:
    broken = read_json(run / "test_result/textcraft/tiny_actor_direct_s1_i1/summary.json")
    write_json(run / "test_result/textcraft/tiny_actor_direct_s1_i1/summary.json", {**broken, "n_failed": 2})
    summary = summarise(run)
    assert summary["missing"]["agent_r_s1_i2"] == "not evaluated"
    assert summary["missing"]["agent_r_s1_i1_revise"] == "not evaluated"
    assert summary["missing"]["direct_s1_i1"] == "2 of 6 episodes failed"
    assert summary["arms"]["direct"]["seeds"] == [0]
    assert summary["cells"] == {"finished": 6, "planned": 8}
    text = document(summary, [])
    assert "- `direct_s1_i1`: 2 of 6 episodes failed" in text
    (line,) = [
        line for line in text.partition("(Figure 3)")[2].splitlines() if line.startswith("| Direct-Revision")
    ][:1]
    assert line.split("|")[3].strip().endswith(", seed 0") and line.split("|")[4].strip() == "-"


def test_tables_and_pictures_are_written(report: Path) -> None:
    text = (report / "experiment.md").read_text()
    pictures = {path.name for path in report.glob("*.png")}
    assert pictures == {"figure_3.png", "table_3.png", "figure_4.png", "figure_5.png", "ablation.png"}
    for name in pictures:
        with Image.open(report / name) as image:
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
        assert colours is not None and len(colours) > 20, name
        assert (report / name).stat().st_size < 100_000
        assert f"]({name})" in text
    assert "| 62.5 % (" in text and "| +12.5 (" in text
    assert str(report.parent) not in text + (report / "summary.json").read_text()


def test_solved_goals_are_broken_down_by_depth(report: Path, summary: dict[str, Any]) -> None:
    kinds = summary["arms"]["agent_r"]["iterations"][0]["kinds"]
    # Goals 0 and 2 are solved by both seeds and by none, goals 1 and 3 by one seed and by both.
    assert {kind: (one["success_rate"], one["n"]) for kind, one in kinds.items()} == {
        "depth_1": (0.5, 2),
        "depth_2": (0.75, 2),
    }
    table = (report / "experiment.md").read_text().split("## Solved goals by kind of goal")[1]
    assert "| arm | iteration | depth 1 (n 2) | depth 2 (n 2) |" in table
    assert re.search(r"\| Agent-R \| 1 \| 50.0 % \([^|]+\) \| 75.0 % ", table)


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(report: Path, summary: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", summarise(report.parent / "run"))
    assert (tmp_path / "summary.json").read_bytes() == (report / "summary.json").read_bytes()
    figure = ablation(summary)
    assert figure is not None and png(figure) == (report / "ablation.png").read_bytes()


@pytest.mark.slow
def test_arms_that_run_all_iterations_are_drawn_as_far_as_they_are_there(run: Path) -> None:
    plan = read_json(run / "arms.json")
    for arm in ("direct", "agent_r_uncleaned"):  # planned for all iterations, though the second is not there
        plan["arms"][arm]["iterations"] = 2
    for arm in ("best_of_n", "agent_r_unverified"):  # a control and an ablation of one iteration
        plan["arms"][arm] = {**plan["arms"]["agent_r"], "iterations": 1}
        evaluated(run, f"{arm}_s0_i1", [GOOD, GOOD, GOOD, GOOD])
    write_json(run / "arms.json", plan)
    summary = summarise(run)
    figure = solved(summary)
    assert figure is not None
    containers: list[Any] = figure.axes[0].containers
    drawn = {bars.get_label(): bars.lines[0].get_xydata() for bars in containers}
    assert {name: [y for _, y in points] for name, points in drawn.items()} == {
        "Direct-Revision + Good": [50.0],
        "Agent-R": [62.5, 100.0],
        "not cleaned": [25.0],
        "untrained": [25.0],
    }
    table = document(summary, []).split("## ")[1]
    listed = ["Direct-Revision + Good", "Agent-R", "not cleaned", "Agent-R on best of N"]
    assert re.findall(r"^\| ([^|]+) \| 25", table, re.MULTILINE) == listed


@pytest.mark.slow
def test_after_a_warm_start_all_arms_start_from_it(run: Path) -> None:
    plan = read_json(run / "arms.json")
    plan["arms"]["warm_start"] = {**plan["arms"]["agent_r"], "iterations": 1}
    write_json(run / "arms.json", plan)
    for seed in (0, 1):
        evaluated(run, f"warm_start_s{seed}_i1", [GOOD, GOOD, LOOP, LOOP])
    summary = summarise(run)
    figure = solved(summary)
    assert figure is not None
    axes: Any = figure.axes[0]
    assert axes.get_xticklabels()[0].get_text() == "warm start"
    (mark,) = [bars for bars in axes.containers if bars.get_label() == "warm start"]
    assert mark.lines[0].get_xydata().tolist() == [[0.0, 50.0]]
    table = document(summary, []).split("## ")[1]
    assert "| arm | start | iteration 1 |" in table
    assert re.search(r"\| warm start \| 25.0 % \([^|]+\| 50.0 % ", table)
    assert re.search(r"\| Agent-R \| 50.0 % \([^|]+\| 62.5 % ", table)


@pytest.mark.slow
def test_the_rehearsed_arm_is_held_against_the_others_as_well(run: Path) -> None:
    plan = read_json(run / "arms.json")
    plan["arms"]["agent_r_rehearsal"] = {**plan["arms"]["agent_r"], "iterations": 1}
    write_json(run / "arms.json", plan)
    evaluated(run, "agent_r_rehearsal_s1_i1", [GOOD, GOOD, GOOD, GOOD])
    summary = summarise(run)
    rows = [row for row in summary["comparisons"] if row["family"] == "rehearsed"]
    found = [(row["before"], row["after"], row["seeds"]) for row in rows]
    assert (
        found == [("direct", "agent_r_rehearsal", [1])] * 2
    )  # solved goals and repeats; no prefixes were played
    assert rows[0]["difference"] == 0.5  # direct solves two of the four goals
    assert "| Agent-R, rehearsed - Direct-Revision + Good | 1 | +50.0 (" in document(summary, [])


def other_goals(run: Path) -> str:
    evaluated(run, "agent_r_s1_i1", [GOOD, LOOP, IDLE, GOOD], first=1)
    return "tiny_actor_base and tiny_actor_agent_r_s1_i1 cannot be compared: panel"


def other_protocol(run: Path) -> str:
    path = run / "test_result/textcraft/tiny_actor_agent_r_s0_i1_revise/summary.json"
    summary = read_json(path)
    summary["protocol"]["max_steps"] = 50
    write_json(path, summary)
    return "max_steps 20 -> 50"


def no_arms(run: Path) -> str:
    (run / "arms.json").unlink()
    return "arms.json"


def other_arms(run: Path) -> str:
    (run / "arms.json").write_text(json.dumps({"seeds": ["x"], "iterations": 1, "arms": {}}))
    return "arms.json: not an experiment's arms"


def nothing(run: Path) -> str:
    (run / "test_result").rename(run / "other_result")
    return "nothing was evaluated"


@pytest.mark.parametrize("spoil", [other_goals, other_protocol, no_arms, other_arms, nothing])
def test_a_run_that_cannot_be_counted_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], str]
) -> None:
    said = spoil(run)
    assert main([str(run), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_code_revisions_are_both_named(run: Path) -> None:
    manifest(
        run / "seed_0/agent_r/iteration_1/model/manifest.json", {"rows": {}, "dropped": {}}, code="fff0000"
    )
    summary = summarise(run)
    assert summary["code"] == "abc1234, fff0000"
    assert "not one revision" in document(summary, [])


@pytest.mark.slow
def test_without_failed_prefixes_of_the_untrained_model_nobody_asks_for_recovery(run: Path) -> None:
    assert "## Recovered failed prefixes" in document(summarise(run), [])
    for folder in (run / "test_result/textcraft").glob("*_revise"):
        shutil.rmtree(folder)
    summary = summarise(run)
    assert not [name for name in summary["missing"] if name.endswith("_revise")]
    assert "ecovered" not in document(summary, [])


def test_the_pages_show_what_the_command_wrote() -> None:
    written = (ROOT / "results/experiment.md").read_text(encoding="utf-8")
    summary = read_json(ROOT / "results/summary.json")
    assert document(summary, [path.name for path in (ROOT / "results").glob("*.png")]) == written
    titles = re.findall(r"^## (.+)$", written, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    linked = re.findall(r"experiment\.md#([^)\s]+)\)", page)
    assert len(linked) > 5
    assert set(linked) <= anchors
    for picture in re.findall(r"\]\(\.\./(results/[^)#]+)\)", page):
        assert (ROOT / picture).is_file(), picture
    first = summary["arms"]["agent_r"]["iterations"][0]
    assert {"success_rate", "ci95", "recovery_rate", "repeats", "revision_length", "n"} <= first.keys()
    assert summary["command"] == "bash scripts/experiment.sh"

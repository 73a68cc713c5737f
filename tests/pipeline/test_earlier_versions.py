"""Runs that an earlier version began: each stage goes on from its files, without asking again for what they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.evaluation.eval_set import choose_starts, cut_failures, load_eval_set
from mcts_utils.evaluation.loops import EpisodeJudge
from mcts_utils.evaluation.protocol import protocol_of
from mcts_utils.evaluation.results import compare_folders, episodes_of, summary_of
from mcts_utils.evaluation.stage import EvaluationStage
from mcts_utils.report.judge.__main__ import TreeFolder, stage_2_verdicts
from mcts_utils.report.judge.oracles import ValueRule
from mcts_utils.revision.options import KINDS, Options
from mcts_utils.revision.pairs import PairRule
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.search.stage import SearchStage
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.layout import episode_path, records_path, run_folder, tree_path
from mcts_utils.types import Actor
from tests.helpers.hand_trees import Scripted

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
VERSIONS = ("b1ca0e1", "ed27ae2", "2f48bea", "902b94e")
NEWEST = VERSIONS[-1]
OLD_NAMES = "2f48bea"  # verdicts and episodes under the trees' names
INDICES = (103, 140)
NAMES = {  # as tests/fixtures/make.sh set them
    **{"TASK": "textcraft", "MODEL_NAME": "tiny_actor", "MODEL_TYPE": "old", "PROMPT": "brief", "SEED": "0"},
    **{"ITERA": "2", "N_GEN": "2", "N_ROLLOUT": "3", "MAX_DEPTH": "8", "MAX_TOKEN_LENGTH": "256"},
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
}


def settings_of(url: str, **changes: str) -> Settings:
    return settings_from_env({**NAMES, "ENV_SERVER_BASE": url, **changes})


def weights_of(version: str) -> str:
    return read_json(FIXTURES / version / "trees/search_results_103.json")["settings"]["weights"]


def nobody() -> Actor:
    raise AssertionError("everything is known, so nobody is to be asked")


def player() -> Scripted:
    return Scripted(lambda messages, temperature, seed: "Thought: I look.\nAction: inventory")


@pytest.fixture
def url(textcraft_url: str) -> str:
    return textcraft_url


@pytest.fixture
def environments(url: str) -> Callable[[], Any]:
    return lambda: make_environment("textcraft", url)


def trees_in(folder: Path, version: str) -> Path:
    """A copy of a version's trees where stage 1 looks for them."""
    trees = tree_path(folder, "textcraft", "tiny_actor", 0).parent
    shutil.copytree(FIXTURES / version / "trees", trees)
    return trees


def runs_in(folder: Path, version: str) -> Path:
    """A copy of a version's evaluations; the folder of its main run."""
    run = run_folder(folder, "textcraft", "tiny_actor", "old")
    shutil.copytree(FIXTURES / version / "evaluations", run.parent)
    return run


def search_stage(folder: Path, version: str, settings: Settings) -> SearchStage:
    goals = read_json(FIXTURES / version / "trees/search_results_103.json")["settings"].get("goals", "")
    return SearchStage(settings, INDICES, folder, goals, weights=weights_of(version))


@pytest.mark.parametrize("version", ["ed27ae2", NEWEST])
def test_a_finished_search_is_not_repeated(version, tmp_path, url, environments):
    trees = trees_in(tmp_path, version)
    before = {path.name: path.read_bytes() for path in trees.iterdir()}
    totals = search_stage(tmp_path, version, settings_of(url)).run(nobody, environments)
    assert (totals["trees"], totals["failed"]) == (2, 0)
    assert {path.name: path.read_bytes() for path in trees.iterdir()} == before


@pytest.mark.parametrize("version", ["ed27ae2", NEWEST])
def test_an_interrupted_search_goes_on_from_its_last_iteration(version, tmp_path, url, environments):
    path = trees_in(tmp_path, version) / "search_results_103.json"
    old = read_json(path)
    write_json(path, {**old, "status": "partial"})
    totals = search_stage(tmp_path, version, settings_of(url, ITERA="3")).run(player, environments)
    assert totals["trees"] == 2
    new = read_json(path)
    assert (new["status"], new["stats"]["iterations"]) == ("done", 3)
    places = [new["nodes"]["id"].index(node) for node in old["nodes"]["id"]]
    for name in ("parent", "depth", "llm_response", "action"):
        assert [new["nodes"][name][place] for place in places] == old["nodes"][name], name


def test_a_tree_of_version_1_without_a_kind_of_server_is_refused_by_name(tmp_path, url, environments):
    trees_in(tmp_path, "b1ca0e1")
    stage = search_stage(tmp_path, "b1ca0e1", settings_of(url))
    with pytest.raises(ValueError, match="search_results_103.json was made with GROUNDING=None"):
        stage.run(nobody, environments)


@pytest.mark.parametrize("data_type", ["centric", "good", "direct", "preference"])
@pytest.mark.parametrize("version", [OLD_NAMES, NEWEST])
def test_records_are_made_again_to_the_byte_and_kept_verdicts_are_used(
    version, data_type, tmp_path, url, environments
):
    verdicts = tmp_path / "records/verdicts"
    shutil.copytree(FIXTURES / version / "records/verdicts", verdicts)
    before = {path.name: path.read_bytes() for path in verdicts.iterdir()}
    settings = settings_of(url, ITERATION="1")
    options = Options(data_type, PairRule(settings.alpha, settings.beta), **row_limit(data_type))
    stage = RevisionStage(
        settings,
        options,
        FIXTURES / version / "trees",
        tmp_path / "records",
        judged=KINDS[data_type] == "revision",
        weights=weights_of(version),
    )
    counts = stage.run((lambda: Scripted(silent)) if stage.judged else None, environments)
    assert counts.verdicts["requests"] == 0
    made = records_path(tmp_path / "records", "textcraft", data_type)
    assert made.read_bytes() == (FIXTURES / version / "records" / made.name).read_bytes()
    assert {path.name: path.read_bytes() for path in verdicts.iterdir()} == before  # nothing new to keep


@pytest.mark.parametrize("version", VERSIONS)
def test_finished_episodes_are_kept_and_their_summary_is_the_same(version, tmp_path, url, environments):
    run = runs_in(tmp_path, version)
    old, names = read_json(run / "summary.json"), {path.name for path in run.glob("*_*.json")}
    settings = settings_of(url, ACTION_GROUNDING="1")
    goals = old["protocol"].get("goals", "")
    starts = choose_starts(settings, "main", goals, "0-2")
    protocol = protocol_of(settings, "main", 0.0, 6, goals)
    stage = EvaluationStage(settings, protocol, starts, tmp_path, weights_of(version))
    summary = json.loads(json.dumps(plain(stage.run(nobody, environments))))
    scores = {
        name: value for name, value in old.items() if name not in ("protocol", "seconds", "tokens", "ci95")
    }
    assert {name: summary[name] for name in scores} == scores
    assert summary["protocol"] == {"goals": "", "grounding": True, **old["protocol"]}
    assert {path.name for path in run.glob("*_*.json")} == names


def test_an_episode_that_failed_before_is_tried_again_under_its_new_name(tmp_path, url, environments):
    run = runs_in(tmp_path, OLD_NAMES)
    data = read_json(run / "search_results_1.json")
    failed = {"version": 1, "status": "failed", "index": 1, "error": "EnvError: x"}
    write_json(run / "search_results_1.json", {**failed, "settings": data["settings"]})
    settings, goals = settings_of(url), data["settings"]["goals"]
    stage = EvaluationStage(
        settings,
        protocol_of(settings, "main", 0.0, 6, goals),
        choose_starts(settings, "main", goals, "0-2"),
        tmp_path,
        weights_of(OLD_NAMES),
    )
    assert stage.run(player, environments).n == 3
    assert [path.name for path in run.glob("episode_*")] == ["episode_1.json"]
    assert [episode.end for episode in episodes_of(run)][1] == "max_steps"


@pytest.mark.parametrize("version", VERSIONS)
def test_old_runs_and_panels_serve_new_ones(version, tmp_path, capsys):
    run = runs_in(tmp_path, version)
    panel = FIXTURES / version / "panel.json"
    goals = summary_of(run).protocol.server_kind
    starts, _ = cut_failures(episodes_of(run), 0)
    assert load_eval_set(panel, "textcraft", "revise", goals) == starts
    other = tmp_path / "again"
    shutil.copytree(run, other)
    for path in list(other.glob("search_results_*")):
        index = int(path.stem.rpartition("_")[2])
        path.rename(episode_path(other, index))  # as the new version names them
    assert compare_folders(run, other)["difference"] == 0
    assert evaluation.main(["loops", str(run), str(other)]) == 0
    assert "episodes (failed)" in capsys.readouterr().out


def test_verdicts_on_old_episodes_are_used(tmp_path, url):
    run = runs_in(tmp_path, NEWEST).with_name("tiny_actor_old_revise")
    judge = EpisodeJudge(settings_of(url), Scripted(silent))
    judge.model = next((run / "verdicts").iterdir()).name
    old = read_json(run / "loops.json")
    found = judge.first_errors(run, [episode for episode in episodes_of(run) if episode.reward < 1])
    assert [error for error in found if error] == [old["revision_length"]["mean"]] * (
        old["revision_length"]["n"]
    )


def test_the_judge_report_reads_old_verdicts():
    found = stage_2_verdicts(
        TreeFolder([FIXTURES / NEWEST / "trees"], "textcraft"),
        [FIXTURES / NEWEST / "records"],
        ValueRule(),
        0,
    )
    assert found["trees"] == 1 and found["other_questions"] == 0


def silent(*_: object) -> str:
    raise AssertionError("this verdict is known")


def row_limit(data_type: str) -> dict[str, int]:
    """The default of path_collection.py."""
    return {"max_per_task": 4 if data_type == "good" else 8}

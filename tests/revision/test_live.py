"""Live revision: what is played, what becomes of it after a stop, and which rows the episodes are."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mcts_collection
import path_collection
from mcts_utils.config import Settings
from mcts_utils.envs import task_id
from mcts_utils.prompts import JUDGE_PROMPTS, REVISION_THOUGHTS, action_of
from mcts_utils.replies import parse_reply
from mcts_utils.report.data import __main__ as data_report
from mcts_utils.report.verify import __main__ as verify
from mcts_utils.revision.live import LiveStage
from mcts_utils.search.tree_io import load_tree
from mcts_utils.servers.app_server import running
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.webshop.app import create_app
from mcts_utils.servers.webshop.goals import limit_and_clause
from mcts_utils.servers.webshop.shop import Shop, bundled_shop
from mcts_utils.storage.files import read_json, read_jsonl
from mcts_utils.types import EnvError, Environment, InputError, StepResult, Task
from tests.helpers.scripted_actor import ScriptedActor

SETTINGS = Settings(
    task="textcraft", model_name="m", n_rollout=2, itera=2, max_depth=3, prompt="full", workers=2
)
SOLVED = 3  # the index whose plain episodes succeed


class Lamps(Environment):
    """Each reset shows another opening; the lamp can be made at any time."""

    numbers = itertools.count()

    def __init__(
        self, left: list[int] | None = None, opening: str = "Room {}.\nGoal: craft lamp {}."
    ) -> None:
        """`left`: resets of all sessions before the server is gone, each taken from the list; None: any number."""
        self.left, self.opening = left, opening

    def reset(self, index: int) -> Task:
        if self.left is not None and not self.left:
            raise EnvError("the server is gone")
        if self.left:
            self.left.pop()
        opening = self.opening.format(next(self.numbers), index)
        return Task("textcraft", index, task_id("textcraft", opening), opening)

    def step(self, action: str) -> StepResult:
        made = action == "craft 1 lamp"
        return StepResult("Crafted 1 lamp" if made else "Could not find stick", float(made), made)

    def close(self) -> None: ...


def acts(messages: Any, n: int, temperature: float, seed: int | None) -> list[str]:
    """Craft the lamp after as many signals as the index says and one more; judge a refused step bad."""
    if messages[0].content in JUDGE_PROMPTS.values():
        bad = "Could not" in messages[-1].content.rpartition("Current observation")[2]
        return [f"It was {'refused' if bad else 'fine'}. Judgment: {'Bad' if bad else 'Good'}"]
    index = int(messages[1].content.rpartition("lamp ")[2].strip("."))
    signals = sum(message.content == "ok." for message in messages)
    ready = index == SOLVED or signals > index
    return [f"Thought: Now.\nAction: {'craft 1 lamp' if ready else 'get 1 stick'}"] * n


def played(folder: Path, indices: list[int], settings: Settings = SETTINGS, **env: Any) -> dict[str, Any]:
    return LiveStage(settings, indices, folder).run(lambda: ScriptedActor(acts), lambda: Lamps(**env))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "mcts_result"
    played(folder, [0, 1, 2, SOLVED])
    return folder / "textcraft" / "m"


def tree_of(folder: Path, index: int) -> Any:
    return load_tree(read_json(folder / f"search_results_{index}.json"))


@pytest.fixture(scope="module")
def run(trees: Path, textcraft_url: str) -> Iterator[Path]:
    """The folder of a run: the trees, and three kinds of rows of them."""
    root = trees.parent.parent.parent
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MODEL_DIR", "OPENAI_BASE_URL", "WORKERS", "ALPHA", "BETA", "PROMPT"):
            patch.delenv(name, raising=False)
        for name, value in {"TASK": "textcraft", "MODEL_NAME": "m", "ENV_SERVER_BASE": textcraft_url}.items():
            patch.setenv(name, value)
        for kind in ("centric", "good", "verdicts"):
            assert revise(trees, root / "records", kind) == 0
        yield root


def revise(trees: Path, out: Path, kind: str) -> int:
    where = ["--input_dir", str(trees), "--output_dir", str(out), "--allow_test"]
    return path_collection.main([*where, "--data_type", kind, "--max_per_task", "99"])


def test_episodes_are_branches_with_signals_after_bad_steps(trees: Path) -> None:
    counts = read_json(trees / "manifest.json")["counts"]
    # The solved task needs no judge. Index 2 would need three signals, the last after its third turn.
    assert {name: counts[name] for name in ("plain", "judged", "signals", "rollouts")} == {
        **{"plain": 8, "judged": 2 * (1 + 2 + 2), "signals": 2 * (1 + 2 + 2), "rollouts": 14}
    }
    assert counts["judge_requests"] == counts["judged"]
    tree = tree_of(trees, 1)
    assert (tree.status, tree.settings["strategy"], len(tree.root.children)) == ("done", "live", 4)
    assert len(set(tree.openings.values())) == 4  # none is that of the task's own reset
    node, actions = tree.root.children[2], []
    while node:
        actions.append((node.action, node.samples))
        node = node.children[0] if node.children else None
    assert actions == [("get 1 stick", 1), ("wait", 0), ("get 1 stick", 1), ("wait", 0), ("craft 1 lamp", 1)]
    assert tree_of(trees, SOLVED).stats["iterations"] == 2


def test_rows_are_the_episodes_as_they_were_played(run: Path, trees: Path, capsys: Any) -> None:
    folder = run / "records"
    first, second = sorted(read_jsonl(folder / "textcraft_centric.jsonl"), key=lambda row: row["task_num"])
    turns = [turn for turn in second["messages"] if turn["role"] == "assistant"]
    assert [turn["loss"] for turn in turns] == [False, True, False, True, True]
    assert [parse_reply(turns[i]["content"]).thought in REVISION_THOUGHTS for i in range(5)] == [
        0,
        1,
        0,
        1,
        0,
    ]
    tree, lineage = tree_of(trees, 1), second["lineage"]
    assert second["messages"][1]["content"] == second["task_description"] in tree.openings.values()
    assert lineage["rewards"] == {"good": 1.0, "record": 1.0, "bad": 0.0}
    assert lineage["replay"] == {"exact": True, "env_steps": 5, "final_observation": "Crafted 1 lamp"}
    begin = tree.root.children[2].id
    assert (lineage["cut"], lineage["cut_step"], lineage["fork"]) == (begin, 0, 0)
    assert lineage["signals"] == [begin + 1, begin + 3]
    assert lineage["verdicts"] == [{"node": begin, "label": "bad", "reason": "It was refused."}]
    assert second["revise_feedback"] == "It was refused." and second["revise"] == turns[1]["content"]
    assert first["lineage"]["cut_step"] == 0
    manifest = read_json(folder / "textcraft_centric.manifest.json")["counts"]
    assert manifest["pairs"] == 6 == manifest["written"] + sum(manifest["dropped"].values())
    assert (manifest["replayed"], manifest["dropped"]) == (2, {"duplicate": 2, "no_gain": 2})
    assert manifest["env_steps"] == manifest["replays"] == 0
    assert data_report.main([str(run)]) == 0
    capsys.readouterr()


def test_good_rows_are_episodes_that_needed_no_signal(run: Path, trees: Path, capsys: Any) -> None:
    (row,) = read_jsonl(run / "records" / "textcraft_good.jsonl")  # the second one has the same actions
    assert (row["task_num"], row["lineage"]["kept"], row["lineage"]["signals"]) == (SOLVED, [0], [])
    assert row["lineage"]["replay"]["exact"] is True
    assert revise(trees, run / "records", "direct") == 2
    assert "live episodes become --data_type centric, good, optimal, not direct" in capsys.readouterr().err


def test_verdicts_become_rows_with_their_own_openings(run: Path, trees: Path) -> None:
    rows = read_jsonl(run / "records" / "textcraft_verdicts.jsonl")
    assert len(rows) == sum(len(tree_of(trees, index).verdicts) for index in range(4)) > 9


def test_verify_makes_the_rows_again_and_executes_none(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert verify.main([str(run), "--sample", "0"]) == 0
    assert "no hash" not in capsys.readouterr().out  # the files of verdicts are listed, too
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "records" / "textcraft_centric.jsonl"
    text = file.read_text()
    changed = re.sub(r'"signals": ?\[', '"signals":[9,', text)
    assert changed != text
    file.write_text(changed)
    assert verify.main([str(tmp_path / "run"), "--sample", "0"]) == 1
    assert "lineage.signals is [9, " in capsys.readouterr().out


def test_what_was_stopped_keeps_its_whole_episodes(tmp_path: Path) -> None:
    one = replace(SETTINGS, workers=1)
    steady = {"opening": "Room.\nGoal: craft lamp {1}."}
    played(tmp_path / "whole", [1], one, **steady)
    # The run's check of the server, the task's opening, three episodes.
    played(tmp_path / "parts", [1], one, left=[0] * 5, **steady)
    path = Path("textcraft", "m", "search_results_1.json")
    broken = read_json(tmp_path / "parts" / path)
    assert (broken["status"], broken["stats"]["iterations"]) == ("failed", 3)
    played(tmp_path / "parts", [1], one, **steady)
    whole, parts = (json.loads((tmp_path / name / path).read_text()) for name in ("whole", "parts"))
    assert whole["nodes"] == parts["nodes"] and whole["verdicts"] == parts["verdicts"]


def test_a_folder_of_another_strategy_or_judge_is_refused(trees: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="N_ROLLOUT must be at least 1 for --strategy live"):
        LiveStage(replace(SETTINGS, n_rollout=0), [0], tmp_path)
    root = trees.parent.parent
    other = replace(SETTINGS, judge_model="other")
    with pytest.raises(InputError, match="JUDGE='m', now 'other': use another --output_dir"):
        LiveStage(other, [0], root).run(lambda: ScriptedActor(acts), Lamps)


class Drifting(tuple[Any, ...]):
    """Goals whose price limit is drawn anew each time, as a public WebShop draws it for each session."""

    rng = random.Random(0)

    def __getitem__(self, index: Any) -> Any:
        goal = super().__getitem__(index)
        limit, clause = limit_and_clause(goal.target.price, self.rng)
        return replace(goal, limit=limit, clause=clause)


@pytest.mark.slow
def test_a_shop_that_draws_its_prices_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop = bundled_shop()
    drifting = Shop(shop.products, shop.goals)
    drifting.goals = Drifting(shop.goals)
    app = create_app(drifting)
    kept = [
        route
        for route in app.router.routes
        if getattr(route, "path", "") not in ("/fork", "/replay", "/about")
    ]
    app.router.routes[:] = kept  # as a public server
    with running(app) as url, running_chat(Behaviour(env="webshop", noise=0.5)) as chat:
        given = {
            "TASK": "webshop",
            "ENV_SERVER_BASE": url,
            "OPENAI_BASE_URL": chat.base_url,
            "MODEL_NAME": MODEL,
        }
        given |= {"N_ROLLOUT": "2", "ITERA": "4", "MAX_DEPTH": "12", "ALPHA": "0.3", "BETA": "0.01"}
        for name in ("MODEL_DIR", "WORKERS", "CONCURRENCY", "EXECUTOR", "PROMPT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        goals = ("--task_ids", ",".join(map(str, shop.split()["train"][:6])), "--allow_test")
        assert mcts_collection.main([*goals, "--strategy", "live"]) == 0
        assert " live: " in capsys.readouterr().out
        folder = f"mcts_result/webshop/{MODEL}"
        assert path_collection.main(["--input_dir", folder, "--allow_test"]) == 0
    rows = read_jsonl("mcts_training_data/webshop_centric.jsonl")
    assert rows and all(row["lineage"]["replay"]["exact"] for row in rows)
    for row in rows:
        replies = [turn for turn in row["messages"] if turn["role"] == "assistant"]
        pages = [turn["content"] for turn in row["messages"][1:] if turn["role"] == "user"]
        clauses = {found for page in pages for found in re.findall(r"price lower than [\d.]+ dollars", page)}
        assert len(clauses) == 1  # one episode, not the steps of several
        assert row["lineage"]["rewards"]["record"] - row["lineage"]["rewards"]["bad"] > 0.01
        assert action_of(replies[row["lineage"]["cut_step"] + 1]["content"]) == "wait"

"""Summaries, comparisons and loops of written episode files, without any server or model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from msgspec import UNSET
from msgspec.structs import replace

import eval as stage
from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation import loops, results
from mcts_utils.evaluation import summary as evaluation_summary
from mcts_utils.evaluation.protocol import differences
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_as, write_json
from mcts_utils.storage.formats.base import parsed, plain
from mcts_utils.storage.formats.episode import EvalProtocol, parse_episode
from mcts_utils.storage.formats.summary import LoopReport, Summary
from mcts_utils.storage.layout import episode_path
from mcts_utils.storage.schema import schema
from mcts_utils.types import Actor, Message, Sample

WORLD = load_world()
OPENINGS = [WORLD.opening(goal) for goal in WORLD.goals]
PROTOCOL = {
    **{"task": "textcraft", "mode": "main", "temperature": 0.0, "max_steps": 20, "prompt": "full"},
    **{"max_token_length": 256, "seed": None, "goals": "k"},
}
WAIT = {"reply": "Thought: I erred.\nAction: wait", "action": "wait", "observation": "ok.", "reward": 0.0}


def step(action: str, refused: bool = False) -> dict:
    """A step as files have it."""
    seen = "Could not execute" if refused else f"Got {action}"
    return {"reply": f"Action: {action}", "action": action, "observation": seen, "reward": 0.0}


def episode(index: int, reward: float, steps: Sequence[dict] = (), sample: int = 0, prefix: int = 0) -> dict:
    """A finished episode's file; the last step earns the reward."""
    taken = list(steps) or [step("get 1 oak log")]
    taken[-1] = {**taken[-1], "reward": reward, "done": reward == 1}
    return {
        "version": 1,
        "status": "done",
        "task": {
            "env": "textcraft",
            "index": index,
            "id": env_spec("textcraft").task_id(OPENINGS[index], index),
            "opening": OPENINGS[index],
        },
        "steps": taken,
        "reward": reward,
        "end": "done" if reward == 1 else "max_steps",
        "prefix_steps": prefix,
        "prefix_exact": True,
        "prompt": "full",
        "settings": {**PROTOCOL, "model": "m", "weights": "", "prefix": ""},
        **({"sample": sample} if sample else {}),
    }


def summarise(
    records: Sequence[dict], protocol: dict[str, object], model: dict[str, str], samples: int = 1
) -> dict:
    """The summary of episode files."""
    episodes = [parse_episode(record) for record in records]
    found = evaluation_summary.summarise(episodes, parsed(protocol, EvalProtocol), model, samples)
    return json.loads(json.dumps(plain(found)))


def write_run(folder: Path, episodes: Sequence[dict], samples: int = 1, **protocol: object) -> Path:
    """A run's folder as eval.py leaves it."""
    for record in episodes:
        write_json(episode_path(folder, record["task"]["index"], record.get("sample", 0)), record)
    how = {**PROTOCOL, **protocol}
    write_json(folder / "summary.json", summarise(episodes, how, {"model_name": "m"}, samples))
    return folder


def load(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("index", range(0, len(WORLD.goals), 7))
def test_the_depth_of_a_goal_is_read_from_its_commands(index):
    depth = WORLD.depth[WORLD.goals[index]]
    assert env_spec("textcraft").breakdown_keys(OPENINGS[index], index) == {"depth": str(depth)}


@pytest.mark.parametrize(
    ("env", "opening", "index", "strata"),
    [
        ("textcraft", "Goal: craft nothing that is listed.", 0, {}),
        ("textcraft", "no goal at all", 0, {}),
        ("sciworld", "Your task is to boil water.", 0, {"task_type": "boil"}),
        ("sciworld", "Your task is to melt ice.", 31, {"task_type": "melt"}),
        ("sciworld", "?", 10**6, {}),
        ("babyai", "Your goal: go to a red ball", 41, {"level": "2"}),
        ("webshop", "no page", 0, {}),
        (
            "webshop",
            "WebShop [SEP] Instruction: [SEP] Find me shirts with color: red, and size: x-large, and price lower than "
            "60.00 dollars [SEP] Search",
            0,
            {"options": "2"},
        ),
        (
            "webshop",
            "Instruction: [SEP] a red shirt, and price lower than 9.00 dollars [SEP]",
            0,
            {"options": "0"},
        ),
    ],
)
def test_kinds_of_tasks(env, opening, index, strata):
    assert env_spec(env).breakdown_keys(opening, index) == strata


def test_a_summary_breaks_its_scores_down(capsys):
    shallow = [i for i, goal in enumerate(WORLD.goals) if WORLD.depth[goal] == 1][:4]
    deep = [i for i, goal in enumerate(WORLD.goals) if WORLD.depth[goal] == 3][:6]
    records = [episode(i, 1.0) for i in shallow] + [episode(i, float(i == deep[0])) for i in deep]
    summary = summarise(records, PROTOCOL, {})
    groups = summary["breakdown"]["depth"]
    assert {depth: (g["n"], round(g["success_rate"], 3)) for depth, g in groups.items()} == {
        "1": (4, 1.0),
        "3": (6, 0.167),
    }
    assert groups["3"]["ci95"]["success_rate"] == pytest.approx([0.0301, 0.5635], abs=1e-3)  # Wilson, 1 of 6
    assert summary["score"] == "success_rate"
    assert summary["ci95"]["steps"] == [1.0, 1.0]
    said = evaluation_summary.describe(parsed(summary, Summary))
    assert f"panel {summary['protocol']['panel'][:12]}" in said
    assert "3         6  0.167" in said


def test_several_samples_of_a_task(tmp_path):
    records = [
        episode(i, float(s < i), sample=s) for i in range(4) for s in range(3)
    ]  # 0, 1, 2, 3 of 3 solved
    summary = summarise(records, PROTOCOL, {}, 3)
    assert (summary["n"], summary["episodes"], summary["success_rate"]) == (4, 12, 0.5)
    found = {k: row["mean"] for k, row in summary["pass_at_k"].items()}
    assert found == pytest.approx({"1": 0.5, "2": (0 + 2 / 3 + 1 + 1) / 4, "3": 0.75})
    assert summary["pass_at_k"]["3"]["n"] == 4
    assert (summary["mean_at_k"]["k"], summary["mean_at_k"]["mean"]) == (3, 0.5)
    assert summary["indices"] == [0, 1, 2, 3]
    low, high = summary["ci95"]["success_rate"]
    assert high - low > 0.5  # four tasks, not twelve
    run = write_run(tmp_path / "k3", records, 3)
    assert len(list(results.episodes_of(run))) == 12
    assert [len(rewards) for rewards in results.rewards_of(run).values()] == [3] * 4


def test_pass_at_k_is_over_the_same_tasks_or_withheld():
    records = [episode(i, 1.0, sample=s) for i in range(3) for s in range(4) if (i, s) < (1, 2) or i == 2]
    summary = summarise(records, PROTOCOL, {}, 4)
    assert {k: (row["mean"], row["n"]) for k, row in summary["pass_at_k"].items()} == {
        "1": (1.0, 3),
        "2": (1.0, 3),
        "3": (None, 2),
        "4": (None, 2),
    }
    assert summary["unfinished_samples"] == {"1": 2}
    said = evaluation_summary.describe(parsed(summary, Summary))
    assert "pass@4 -\n" in said and "fewer finished samples (index 1: 2)" in said


def test_a_task_without_a_finished_sample_withholds_every_k():
    done = [episode(1, 1.0, sample=s) for s in range(2)]
    lost = {"status": "failed", "index": 5, "error": "gone", "settings": episode(5, 0.0)["settings"]}
    failed = [lost, lost | {"sample": 1}]
    summary = summarise([*done, *failed], PROTOCOL, {}, 2)
    assert [row["mean"] for row in summary["pass_at_k"].values()] == [None, None]
    assert summary["unfinished_samples"] == {"5": 0}


def test_a_goal_behind_two_indices_counts_once():
    again = episode(7, 0.0)
    twice = {**again, "task": {**again["task"], "id": episode(2, 1.0)["task"]["id"]}}
    summary = summarise([episode(1, 0.0), episode(2, 1.0), twice], PROTOCOL, {})
    assert (summary["n"], summary["success_rate"], summary["indices"]) == (2, 0.5, [1, 2])
    assert summary["duplicates"] == {"7": 2}
    assert "counted once" in evaluation_summary.describe(parsed(summary, Summary))


def test_compare_refuses_other_environments_samples_and_goals(tmp_path, capsys):
    episodes = [episode(i, float(i % 2)) for i in range(4)]
    base = write_run(tmp_path / "base", episodes)
    others = {
        "goals (kind of server) 'k' -> 'other'": write_run(tmp_path / "b", episodes, goals="other"),
        "task 'textcraft' -> 'babyai'": write_run(tmp_path / "c", episodes, task="babyai"),
        "samples 1 -> 2": write_run(tmp_path / "d", episodes, 2),
        "shots 0 -> 2": write_run(tmp_path / "e", episodes, shots=2),
        "goals only in the first 1, only in the second 0": write_run(tmp_path / "f", episodes[1:]),
    }
    for said, run in others.items():
        assert stage.main(["compare", str(base), str(run)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert stage.main(["compare", str(base)]) == 2
    assert stage.main(["compare", str(base), str(base)]) == 2


def test_a_protocol_without_the_newer_fields_means_their_defaults():
    old = parsed(PROTOCOL, EvalProtocol)
    now = {"shots": 0, "examples": "", "samples": 1, "grounding": True}
    assert differences(old, parsed({**PROTOCOL, **now}, EvalProtocol)) == []
    assert differences(old, replace(old, shots=2)) == ["shots 0 -> 2"]


def test_several_runs_are_compared_in_pairs_and_adjusted(tmp_path, capsys):
    wins = {"a": 0, "b": 9, "c": 12}
    runs = [
        str(write_run(tmp_path / name, [episode(i, float(i < n)) for i in range(20)]))
        for name, n in wins.items()
    ]
    assert stage.main(["compare", "--all", "--json", str(tmp_path / "pairs.json"), *runs]) == 0
    said = capsys.readouterr().out
    found = load(tmp_path / "pairs.json")
    Draft202012Validator(schema("comparison")).validate(found)
    assert [(p["before"], p["after"], p["gained"]) for p in found["pairs"]] == [
        ("a", "b", 9),
        ("a", "c", 12),
        ("b", "c", 3),
    ]
    p_values = [2 / 2**9, 2 / 2**12, 2 / 2**3]
    assert [p["mcnemar_p"] for p in found["pairs"]] == pytest.approx(p_values)
    assert [p["p_holm"] for p in found["pairs"]] == pytest.approx([4 / 2**9, 6 / 2**12, 2 / 2**3])
    assert found["panel"][:12] in said
    assert "n 20: a difference of" in said
    assert stage.main(["compare", *runs]) == 0
    assert "b -> c" not in capsys.readouterr().out


def run_with_errors(folder: Path) -> Path:
    """Three failed episodes, first refused at 2, 4 and never; a solved one that was refused at once."""
    a, no, b = step("a"), step("x", True), step("b")
    return write_run(
        folder,
        [
            episode(0, 0.0, [a, no, WAIT, b, b]),
            episode(1, 0.0, [no, no, a, b, a, no], prefix=2),
            episode(2, 0.0, [a, b, a, b, a, b]),
            episode(3, 1.0, [no, a]),
        ],
    )


def test_loops_and_revision_length_come_from_the_files_alone(tmp_path, capsys):
    run = run_with_errors(tmp_path / "run")
    assert stage.main(["loops", str(run)]) == 0
    found = load(run / "loops.json")
    assert (found["episodes"], found["failed"], found["judge"]) == (4, 3, {"by": "predicate"})
    assert found["revision_length"]["mean"] == 3.0  # 2, and 4 after a prefix
    assert (found["revision_length"]["n"], found["error_found"]["mean"]) == (2, pytest.approx(2 / 3))
    assert (found["first_signal"]["mean"], found["signals"]["mean"]) == (3.0, 0.25)
    assert [found["repeated_sequences"][k]["mean"] for k in "123"] == [0.25, 0.5, 0.0]
    low, high = found["repeated_sequences"]["2"]["ci95"]
    assert low <= 0.5 <= high
    said = capsys.readouterr().out
    assert "revision length" in said
    assert "4 (3)" in said
    assert stage.main(["loops", str(tmp_path / "nowhere")]) == 2


def test_loops_say_what_follows_a_refused_action(tmp_path, capsys):
    a, no, other = step("a"), step("x", True), step("y", True)
    played = [no, WAIT, no, WAIT, a, no, no], [other, WAIT, no, a, WAIT, no], [a, a, no]
    run = write_run(tmp_path / "run", [episode(i, 0.0, list(steps)) for i, steps in enumerate(played)])
    assert stage.main(["loops", str(run)]) == 0
    found, said = load(run / "loops.json"), capsys.readouterr().out
    # Of 5 refused actions with a next step 1 is taken again, 3 bring a signal; of these 1 the same, 1 an accepted one.
    for name, share in (("errors_repeated", 1 / 5), ("errors_signalled", 3 / 5)):
        assert (found[name]["mean"], found[name]["n"]) == (pytest.approx(share), 2)
    for name in ("signals_same", "signals_accepted"):
        assert (found[name]["mean"], found[name]["n"]) == (pytest.approx(1 / 3), 2)
    assert "signal, then accepted" in said
    shown = load(run / "loops.json")
    for name in ("errors_repeated", "errors_signalled", "signals_same", "signals_accepted"):
        del shown[name]  # as earlier versions wrote it
    (run / "loops.json").write_text(json.dumps(shown), encoding="utf-8")
    assert read_as(run / "loops.json", LoopReport).signals_same is UNSET


class Judging(Actor):
    """Calls `b` bad; counts its calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        self.asked.append(messages[-1].content)
        label = "Bad" if "Current action: b" in self.asked[-1] else "Good"
        return [Sample(f"I see.\nJudgment: {label}")]

    def stats(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Nothing to free."""


def test_the_models_own_verdict_is_asked_once(tmp_path, capsys, monkeypatch):
    run, judge = run_with_errors(tmp_path / "run"), Judging()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_NAME", "judge")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(loops, "make_actor", lambda settings: judge)
    assert stage.main(["loops", "--judge", "model", str(run)]) == 0
    found = load(run / "loops.json")
    # 4th (a signal is not judged), 2nd after the prefix, 2nd
    assert found["revision_length"] == {**found["revision_length"], "mean": pytest.approx(8 / 3), "n": 3}
    assert found["first_refused"]["mean"] == 3.0
    assert (found["judge"]["model"], found["error_found"]["mean"]) == ("judge", 1.0)
    assert judge.asked
    judge.asked.clear()
    assert stage.main(["loops", "--judge", "model", str(run)]) == 0
    assert not judge.asked
    assert load(run / "loops.json") == found
    monkeypatch.setenv("MODEL_NAME", "")
    assert stage.main(["loops", "--judge", "model", str(run)]) == 2
    assert "MODEL_NAME" in capsys.readouterr().err

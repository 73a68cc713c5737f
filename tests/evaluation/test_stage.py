"""Stage 4 against the bundled server over a socket, with an actor that knows the planner."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import eval as stage
from mcts_utils.envs import task_set
from mcts_utils.evaluation import eval_set
from mcts_utils.prompts import reply_text
from mcts_utils.servers.textcraft.planner import Planner
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor, ActorError, Message, Sample, Step, Task
from tests.helpers.run_files import finished_episode

WORLD = load_world()
TEST_IDS = WORLD.split()["test"]
EASY = TEST_IDS[:12]  # crafted in few steps
IDS = ",".join(map(str, EASY))
VARIABLES = (
    "MODEL_DIR",
    "MODEL_TYPE",
    "MODEL_NAME",
    "OPENAI_BASE_URL",
    "PROMPT",
    "TASK",
    "SEED",
    "CONCURRENCY",
)


def goal_of(opening: str) -> str:
    """The goal item as the world names it."""
    found = re.search(r"Goal: craft (.*)\.", opening)
    assert found
    return found.group(1).replace(" ", "_")


def plan_next(messages: Sequence[Message]) -> str:
    """What the planner does next in this conversation."""
    opening = messages[1].content
    game = Session(WORLD, goal_of(opening))
    for turn in messages[2:]:
        if turn.role == "assistant":
            game.step(turn.content.partition("Action: ")[2])
    lines = opening.split("\n\n")[0].splitlines()[1:]
    return Planner(WORLD, game.goal, lines).plan(game.inventory)[0].command


class Player(Actor):
    """Solves a goal by the planner unless `skill` says otherwise; remembers what it was asked."""

    def __init__(self, skill: Callable[[str], bool] = lambda goal: True) -> None:
        self.skill = skill
        self.asked: list[tuple[str, float, int]] = []  # goal, temperature, turns taken so far
        self.broken: Callable[[str], bool] = lambda goal: False
        self.interrupt_after: int | None = None
        self.closed = False

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        goal = goal_of(messages[1].content)
        self.asked.append((goal, temperature, len(messages) // 2 - 1))
        if self.interrupt_after is not None and len(self.asked) > self.interrupt_after:
            raise KeyboardInterrupt
        if self.broken(goal):
            raise ActorError("the endpoint\nburst")
        action = plan_next(messages) if self.skill(goal) else "get 1 moonstone"
        return [Sample(reply_text("I go on.", action))] * n

    def stats(self) -> dict[str, float]:
        return {"calls": len(self.asked)}

    def close(self) -> None:
        self.closed = True


def half(goal: str) -> bool:
    """A skill that about half of the goals need."""
    return WORLD.goals.index(goal) in EASY[::2]


@pytest.fixture
def run(textcraft_url, tmp_path, monkeypatch):
    """run(player, *flags) -> exit code of eval.py in an empty folder with a clean environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENV_SERVER_BASE", textcraft_url)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the player stands in for it
    monkeypatch.chdir(tmp_path)

    def call(player: Player, *flags: str, model: str = "tester") -> int:
        monkeypatch.setattr(stage, "make_actor", lambda settings: player)
        return stage.main(["--model_name", model, *flags])

    return call


def folder(model: str = "tester", kind: str = "") -> Path:
    """Where the results are, below the working folder."""
    return Path("test_result", "textcraft", f"{model}_{kind}")


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def test_scores_every_task_and_says_how(run, capsys):
    player = Player(half)
    assert run(player, "--task_ids", IDS, "--max_steps", "30") == 0
    summary = load(folder() / "summary.json")
    assert (summary["n"], summary["success_rate"], summary["mean_reward"], summary["n_failed"]) == (
        12,
        0.5,
        0.5,
        0,
    )
    low, high = summary["ci95"]["success_rate"]
    assert 0.2 < low < 0.3
    assert 0.7 < high < 0.8
    assert summary["ends"] == {"done": 6, "max_steps": 6}
    lost = 6 * 30  # steps of the failed half, all of them refused
    assert summary["invalid_action_share"] == pytest.approx(lost / summary["steps"]["total"])
    assert summary["repeated_sequences"]["1"] >= 6 * 29 / 12
    assert summary["protocol"]["temperature"] == 0
    assert {temperature for _, temperature, _ in player.asked} == {0.0}
    record = load(folder() / f"episode_{EASY[0]}.json")
    assert (record["status"], record["reward"], record["end"], record["prompt"]) == (
        "done",
        1.0,
        "done",
        "full",
    )
    assert record["steps"][-1]["done"]
    assert record["task"]["index"] == EASY[0]
    manifest = load(folder() / "manifest.json")
    assert {"summary.json", f"episode_{EASY[0]}.json"} <= {out["path"] for out in manifest["outputs"]}
    assert summary["tokens"] == manifest["tokens"] == {"calls": len(player.asked)}
    assert "success rate 0.500" in capsys.readouterr().out


def test_default_is_the_servers_test_split(run):
    assert run(Player(lambda goal: False), "--max_steps", "1") == 0
    assert load(folder() / "summary.json")["indices"] == TEST_IDS


def test_a_finished_run_is_not_run_again(run):
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "12") == 0
    before = {path.name: path.read_bytes() for path in folder().iterdir()}
    again = Player()
    assert run(again, "--task_ids", IDS, "--max_steps", "12") == 0
    assert not again.asked
    assert {path.name: path.read_bytes() for path in folder().iterdir()} == before


def test_interrupted_run_goes_on(run, capsys):
    player = Player()
    player.interrupt_after = 20
    assert run(player, "--task_ids", IDS) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert player.closed
    finished = {load(path)["task"]["index"] for path in folder().glob("episode_*.json")}
    assert not (folder() / "summary.json").exists()
    assert len(finished) < len(EASY)
    rest = Player()
    assert run(rest, "--task_ids", IDS) == 0
    assert {WORLD.goals.index(goal) for goal, _, _ in rest.asked} == set(EASY) - finished
    assert load(folder() / "summary.json")["n"] == 12


def test_failed_tasks_are_counted_not_scored_and_tried_again(run):
    player = Player()
    player.broken = lambda goal: WORLD.goals.index(goal) in EASY[:2]
    assert run(player, "--task_ids", IDS) == 1
    summary = load(folder() / "summary.json")
    assert (summary["n"], summary["n_failed"], summary["success_rate"]) == (10, 2, 1.0)
    assert {row["index"] for row in summary["failures"]} == set(EASY[:2])
    assert summary["failures"][0]["error"] == "ActorError: the endpoint burst"
    mended = Player()
    assert run(mended, "--task_ids", IDS) == 0
    assert {WORLD.goals.index(goal) for goal, _, _ in mended.asked} == set(EASY[:2])
    assert load(folder() / "summary.json")["n"] == 12


def test_episodes_run_at_once(run, monkeypatch):
    monkeypatch.setenv("CONCURRENCY", "4")
    met = threading.Barrier(4, timeout=30)

    class Together(Player):
        """Answers the first question of an episode once four episodes have asked theirs."""

        def sample(self, messages, n=1, temperature=1.0, seed=None):
            if len(messages) == 2:
                met.wait()
            return super().sample(messages, n, temperature, seed)

    assert run(Together(), "--task_ids", IDS) == 0
    assert load(folder() / "summary.json")["n"] == 12


def test_a_dead_endpoint_ends_the_run_in_one_line(run, capsys):
    player = Player()
    player.broken = lambda goal: True
    assert run(player, "--task_ids", "test") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "none worked" in error
    assert "the endpoint burst" in error
    assert len(player.asked) < len(TEST_IDS)


def test_other_settings_do_not_mix_with_finished_files(run, capsys):
    assert run(Player(), "--task_ids", "0-2", "--max_steps", "30") == 0
    capsys.readouterr()
    player = Player(lambda goal: False)
    assert run(player, "--task_ids", "0-3", "--max_steps", "20") == 2
    error = capsys.readouterr().err
    assert "max_steps 30 -> 20" in error
    assert error.count("\n") == 1
    assert not player.asked
    assert load(folder() / "summary.json")["success_rate"] == 1
    assert run(player, "--task_ids", "0-3", "--max_steps", "20", "--overwrite", "1") == 0
    assert load(folder() / "summary.json")["success_rate"] == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--env_server_base", "http://127.0.0.1:9"], "env_server_base"),
        (["--env_server_base", "ftp://x"], "ENV_SERVER_BASE"),
        (["--task_ids", "1-x"], "1-x"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--max_steps", "0"], "--max_steps"),
        (["--mode", "revise"], "--from"),
        (["--mode", "revise", "--from", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, capsys, flags, named):
    assert run(Player(), *flags) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_missing_model_name_is_named(run, capsys):
    assert run(Player(), model="") == 2
    assert "MODEL_NAME" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["half", "", "null", "\x00\x00"])
def test_a_truncated_result_is_named_and_played_again(run, capsys, content):
    assert run(Player(), "--task_ids", "0-2") == 0
    broken = folder() / "episode_1.json"
    whole = broken.read_text()
    broken.write_text(whole[:40] if content == "half" else content)
    player = Player()
    assert run(player, "--task_ids", "0-2") == 0
    assert "episode_1.json: " in capsys.readouterr().err and len({goal for goal, *_ in player.asked}) == 1
    assert without_seconds(json.loads(broken.read_text())) == without_seconds(json.loads(whole))


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
@pytest.mark.parametrize("content", ["half", "", "null", "[]", '{"n": NaN}', '{"version": []}', "\udcff"])
def test_a_broken_summary_or_manifest_is_named_and_made_again(run, capsys, name, content):
    if not (folder() / name).exists():
        assert run(Player(), "--task_ids", "0-2") == 0
    broken = folder() / name
    whole = json.loads(broken.read_text())
    text = broken.read_text()[:40] if content == "half" else content
    broken.write_bytes(text.encode("utf-8", "surrogateescape"))
    player = Player()
    assert run(player, "--task_ids", "0-2") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if f"{name}: " in line]
    assert "made again" in line and not player.asked
    again = json.loads(broken.read_text())
    assert {**again, "seconds": 0, "tokens": 0} == {**whole, "seconds": 0, "tokens": 0}


def without_seconds(episode: dict) -> dict:
    """An episode without its wall time."""
    return {**episode, "seconds": 0}


def test_revision_starts_from_cut_failures(run, monkeypatch):
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "9") == 0
    revise = ["--mode", "revise", "--from", str(folder()), "--panel", "panel.json", "--seed", "3"]
    good = Player()
    assert run(good, *revise, model="good") == 0
    summary = load(folder("good", "_revise") / "summary.json")
    assert (summary["n"], summary["recovery_rate"], summary["prefixes_replayed_exactly"]) == (6, 1.0, 6)
    rows = load(Path("panel.json"))["prefixes"]
    assert {row["index"] for row in rows} == set(EASY[1::2])
    for row in rows:
        taken = [turns for goal, _, turns in good.asked if WORLD.goals.index(goal) == row["index"]]
        assert min(taken) == len(row["steps"]) >= 1  # the first question comes after the whole prefix
        record = load(folder("good", "_revise") / f"episode_{row['index']}.json")
        assert record["steps"][: len(row["steps"])] == row["steps"]
        assert record["prefix_steps"] == len(row["steps"])
    # Another model gets the very same prefixes from the file, without the run that they came from.
    bad = Player(lambda goal: False)
    assert run(bad, "--mode", "revise", "--panel", "panel.json", "--max_steps", "50", model="bad") == 0
    other = load(folder("bad", "_revise") / "summary.json")
    assert other["protocol"] == summary["protocol"]
    assert other["recovery_rate"] == 0
    assert other["steps"]["mean"] == 50  # new steps only
    assert stage.main(["compare", str(folder("bad", "_revise")), str(folder("good", "_revise"))]) == 0


def test_ids_of_one_kind_of_server_are_not_played_on_another(run, capsys, monkeypatch):
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "9") == 0
    revise = ["--mode", "revise", "--from", str(folder()), "--seed", "3", "--max_steps", "3"]
    assert run(Player(), *revise, "--panel", "panel.json", model="good") == 0
    monkeypatch.setattr(task_set, "server_about", lambda url: {"kind": "agentgym", "extensions": []})
    capsys.readouterr()
    assert run(Player(), *revise, model="other") == 2
    assert "--from" in (said := capsys.readouterr().err) and "this one is agentgym" in said
    assert run(Player(), *revise, "--panel", "panel.json", model="other") == 2
    assert "--panel panel.json: its server was of kind agent-r-textcraft-" in capsys.readouterr().err
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "9") == 2  # nor resumed
    assert "goals" in capsys.readouterr().err


def test_cuts_depend_on_the_seed_and_leave_something_to_change():
    steps = [Step(f"Action: {i}", str(i), "o", 0.0) for i in range(40)]
    task = Task("textcraft", 1, "t", "")
    lost = finished_episode(task, steps, 0.0)
    cuts = {seed: len(eval_set.cut_failures([lost], seed)[0][0].prefix) for seed in range(30)}
    assert len(set(cuts.values())) > 10
    assert all(1 <= cut <= 40 for cut in cuts.values())
    fatal = finished_episode(task, [steps[0], replace(steps[1], disaster=True)], 0.0)
    for seed in range(9):
        assert len(eval_set.cut_failures([fatal], seed)[0][0].prefix) == 1
    others = [finished_episode(task, steps, 0.1), finished_episode(task, [], 0.0)]
    starts, left_out = eval_set.cut_failures(others, 0)
    assert (starts, left_out) == ([], {"not_failed": 1, "too_short": 1})


def test_comparison_is_paired_and_refuses_what_differs(run, capsys):
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "12", model="a") == 0
    assert run(Player(), "--task_ids", IDS, "--max_steps", "12", model="b") == 0
    capsys.readouterr()
    assert stage.main(["compare", str(folder("a")), str(folder("b"))]) == 0
    table = capsys.readouterr().out
    assert re.search(r"success rate +0.500 -> 1.000", table)
    assert re.search(r"wins / losses / ties +6 / 0 / 6", table)
    assert "p = 0.0312" in table
    assert run(Player(), "--task_ids", "0-2", "--max_steps", "5", model="c") == 0
    capsys.readouterr()
    assert stage.main(["compare", str(folder("a")), str(folder("c"))]) == 2
    error = capsys.readouterr().err
    assert "max_steps 12 -> 5" in error
    assert "panel" in error


def test_a_retrained_model_is_another_model(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 100)
    before = fingerprint(str(tmp_path))
    assert fingerprint(str(tmp_path)) == before
    weights.write_bytes(b"a" * 99 + b"b")
    assert fingerprint(str(tmp_path)) != before
    assert fingerprint("") == ""


class Sampler(Player):
    """Plays on, and keeps the seed of every episode's first turn, by goal."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: dict[str, list[int | None]] = {}
        self.lock = threading.Lock()

    def sample(self, messages, n=1, temperature=1.0, seed=None):
        if len(messages) == 2:
            with self.lock:
                self.seeds.setdefault(goal_of(messages[1].content), []).append(seed)
        return super().sample(messages, n, temperature, seed)


def test_several_samples_a_task(run, capsys):
    few = ["--task_ids", "0-2", "--max_steps", "12", "--seed", "4"]
    assert run(Sampler(), *few, "--temperature", "1") == 0
    before = {path.name: path.read_bytes() for path in folder().glob("episode_*")}
    player = Sampler()
    assert run(player, *few, "--temperature", "1", "--samples", "3") == 0
    # The first sample of each is the run of before, and the others draw with seeds of their own.
    assert {name: (folder() / name).read_bytes() for name in before} == before
    assert [len(set(seeds)) for seeds in player.seeds.values()] == [2, 2, 2]
    assert (folder() / "episode_1_s2.json").exists()
    summary = load(folder() / "summary.json")
    assert (summary["n"], summary["episodes"], summary["samples"]) == (3, 9, 3)
    assert set(summary["pass_at_k"]) == {"1", "2", "3"}
    assert "mean@3" in capsys.readouterr().out
    assert run(Sampler(), *few, "--samples", "3") == 2
    assert "--samples 3" in capsys.readouterr().err


def test_a_frozen_panel_is_played_elsewhere_and_only_as_it_is(run, capsys):
    first = ["--task_ids", "3,1", "--max_steps", "12", "--panel", "panel.json"]
    assert run(Player(), *first, model="a") == 0
    assert {(row["index"], len(row["steps"])) for row in load(Path("panel.json"))["prefixes"]} == {
        (1, 0),
        (3, 0),
    }
    assert run(Player(), *first, model="a") == 0  # again, now with the file
    assert run(Player(), "--max_steps", "12", "--panel", "panel.json", model="b") == 0
    one, two = (load(folder(model) / "summary.json") for model in "ab")
    assert one["panel"] == two["panel"] == load(Path("panel.json"))["sha256"]
    assert two["indices"] == [3, 1]
    capsys.readouterr()
    assert run(Player(), "--task_ids", "1-2", "--panel", "panel.json", model="c") == 2
    assert "other tasks than --task_ids 1-2" in capsys.readouterr().err
    data = load(Path("panel.json"))
    data["prefixes"][0]["task_id"], data["sha256"] = "textcraft:0", ""  # another server's goal
    Path("panel.json").write_text(json.dumps(data))
    assert run(Player(), "--panel", "panel.json", model="d") == 2
    assert "not textcraft:0" in capsys.readouterr().err.splitlines()[-1]


class Shown(Player):
    """Plays on, and keeps what was shown before its task."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[str]] = {}

    def sample(self, messages, n=1, temperature=1.0, seed=None):
        at = max(i for i, m in enumerate(messages) if m.content.startswith("Crafting commands"))
        assert [m.role for m in messages] == [
            "system",
            *["user", "assistant"] * (len(messages) // 2 - 1),
            "user",
        ]
        openings = [m.content for m in messages[1:at] if m.content.startswith("Crafting commands")]
        self.shown.setdefault(goal_of(messages[at].content), [goal_of(text) for text in openings])
        return super().sample([messages[0], *messages[at:]], n, temperature, seed)


def test_examples_are_shown_and_never_the_task_itself(run, capsys):
    assert run(Player(half), "--task_ids", IDS, "--max_steps", "9", model="teacher") == 0
    solved = {WORLD.goals[i] for i in EASY[::2]}
    few = [
        "--shots",
        "3",
        "--examples",
        str(folder("teacher")),
        "--max_steps",
        "9",
        "--task_ids",
        IDS,
        "--seed",
        "5",
    ]
    player, again = Shown(), Shown()
    assert run(player, *few) == 0
    assert len(player.shown) == len(EASY)
    for goal, shown in player.shown.items():
        assert len(set(shown)) == 3
        assert goal not in shown
        assert set(shown) <= solved
    assert len({frozenset(shown) for shown in player.shown.values()}) > 1  # some stand in for the task itself
    protocol = load(folder() / "summary.json")["protocol"]
    assert protocol["shots"] == 3
    assert re.fullmatch("[0-9a-f]{64}", protocol["examples"])
    assert run(again, *few, model="again") == 0
    assert again.shown == player.shown
    capsys.readouterr()
    assert stage.main(["compare", str(folder("teacher")), str(folder())]) == 2
    assert "shots 0 -> 3" in capsys.readouterr().err


def test_examples_of_records_and_what_cannot_be_shown(run, capsys):
    def row(index: int) -> dict:
        turns = [
            ("system", "Craft."),
            ("user", WORLD.opening(WORLD.goals[index])),
            ("assistant", "Action: inventory"),
        ]
        return {"messages": [{"role": role, "content": text, "loss": False} for role, text in turns]}

    Path("rows.jsonl").write_text("".join(json.dumps(row(i)) + "\n" for i in (0, 1, 1)))
    few = ["--task_ids", "0,5", "--max_steps", "9", "--examples", "rows.jsonl"]
    player = Shown()
    assert run(player, *few, "--shots", "1") == 0
    assert player.shown[WORLD.goals[0]] == [WORLD.goals[1]]
    capsys.readouterr()
    for flags, named in {
        ("--shots", "3"): "2 solved goals",
        ("--shots", "0"): "--examples",
        ("--shots", "2"): "only 1 of the examples",
    }.items():
        assert run(Shown(), *few, *flags, model="m" + flags[1]) == 2
        assert named in capsys.readouterr().err.splitlines()[-1]
    Path("rows.jsonl").write_text(json.dumps({"messages": [{"role": "assistant", "content": "x"}]}) + "\n")
    assert run(Shown(), *few, "--shots", "1", model="n") == 2
    assert "row 1" in capsys.readouterr().err

"""The bundled actor: what it is trained on, and that the committed model is what its card says."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.tiny_actor import demonstrations as demo
from mcts_utils.tiny_actor import make
from mcts_utils.tiny_actor.training import encode
from tests.helpers import quick_actor

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "tiny_actor"
WORLD = load_world()


@pytest.fixture(scope="module")
def curriculum() -> make.Curriculum:
    return make.Curriculum(WORLD)


def goal_of(dialogue: demo.Dialogue) -> str:
    opening = next(turn.content for turn in dialogue if turn.role == "user")
    return opening.split("Goal: craft ")[1].split(".")[0].replace(" ", "_")


def test_only_training_goals_are_shown(curriculum: make.Curriculum) -> None:
    test = {WORLD.goals[i] for i in WORLD.split()["test"]}
    rng = random.Random(0)
    seen = {goal_of(curriculum.habits(rng, 0.5)) for _ in range(400)}
    assert len(seen) > 150
    assert not seen & test


def test_skilled_play_ends_at_the_goal_and_slips_carry_no_loss() -> None:
    rng = random.Random(1)
    slips = 0
    for _ in range(60):
        goal = WORLD.goals[rng.choice(WORLD.split()["train"])]
        player = demo.skilled(WORLD, goal, rng, noise=0.3)
        refused = [demo.refused(step.observation) for step in player.steps]
        assert player.steps[-1].done or len(player.steps) == demo.MAX_TURNS
        assert all(weight == 0 for weight, no in zip(player.weights, refused, strict=True) if no)
        slips += player.weights.count(0.0)
    assert slips > 20


def test_habits_are_trained_and_are_slips_of_a_player_who_knows_the_way() -> None:
    rng = random.Random(2)
    goals = [i for i in WORLD.split()["train"] if WORLD.depth[WORLD.goals[i]] > 1]
    players = [demo.hasty(WORLD, WORLD.goals[rng.choice(goals)], rng, 0.55, 0.5) for _ in range(80)]
    steps = [step for player in players for step in player.steps]
    share = sum(demo.refused(step.observation) for step in steps) / len(steps)
    assert 0.3 < share < 0.8
    assert all(weight == 1.0 for player in players for weight in player.weights)
    assert sum(player.steps[-1].done for player in players) > 30


def test_the_judges_labels_are_the_planners() -> None:
    world, goal = WORLD, "stick"
    player = demo.ScriptedPlayer(world, goal, world.commands(goal))
    for command in (
        "get 2 bamboo",
        "craft 1 stick using 3 bamboo",
        "inventory",
        "craft 1 stick using 2 bamboo",
    ):
        player.play("", command, 1.0)
    labels = [demo.oracle_verdict(player, i)[0] for i in range(4)]
    assert labels == ["Good", "Bad", "Uncertain", "Good"]


def test_permuted_names_keep_the_grammar_and_the_tags(curriculum: make.Curriculum) -> None:
    rng = random.Random(3)
    dialogue = demo.skilled(WORLD, "campfire", rng, 0.0).dialogue()
    renamed = demo.permuted(dialogue, curriculum.words, rng)
    opening, other = dialogue[1].content, renamed[1].content
    assert renamed[0] == dialogue[0]
    assert other != opening
    assert "3 logs, 1 coals" in other
    assert [line.split()[:1] for line in other.splitlines()] == [
        line.split()[:1] for line in opening.splitlines()
    ]


def test_training_ids_are_the_chat_templates(curriculum: make.Curriculum) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rng = random.Random(4)
    for dialogue in [curriculum.base(rng, 0.5) for _ in range(10)] + [
        curriculum.habits(rng, 0.5) for _ in range(10)
    ]:
        example = encode(dialogue, Tokenizer.from_file(str(MODEL / "tokenizer.json")))
        messages = [{"role": turn.role, "content": turn.content} for turn in dialogue]
        assert example.ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        trained = [i for i, weight in zip(example.ids, example.weights, strict=True) if weight == 1]
        spoken = "".join(t.content + "<|end|>" for t in dialogue if t.weight == 1)
        assert tokenizer.decode(trained) == spoken


def test_the_committed_model_is_small_and_is_what_its_card_says() -> None:
    assert sum(path.stat().st_size for path in MODEL.glob("*.safetensors")) < 8 * 2**20
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    parameters = sum(p.numel() for p in model.parameters())
    assert 1_000_000 <= parameters <= 3_000_000
    text = (MODEL / "README.md").read_text(encoding="utf-8")
    card = json.loads((MODEL / "card.json").read_text(encoding="utf-8"))
    solved = card["model"]["skill"]["success_rate"]
    assert f"{parameters:,} parameters" in text
    assert f"{100 * solved:.1f} %" in text
    assert f"{100 * card['model']['judge']['error_rate']:.1f} %" in text
    assert 0.25 <= solved <= 0.5
    assert card["base"]["skill"]["success_rate"] > solved + 0.15


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command in this process; what it trains with are processes of their own."""
    monkeypatch.setattr(sys, "argv", ["make", *arguments])
    monkeypatch.setattr(make, "worker", quick_actor.worker)
    return make.main()


@pytest.mark.slow
def test_making_it_again_from_a_seed_gives_a_model_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model = str(tmp_path / "base"), str(tmp_path / "model")
    small = ("--tokens", "3000", "--processes", "1", "--seed", "3")
    assert run(monkeypatch, "base", "--output", base, *small) == 0
    # Its process is this one, which has loaded the libraries already.
    for name in ("planned_exactly", "TOKENIZER_DIALOGUES"):  # quick_actor changes them
        monkeypatch.setattr(make, name, getattr(make, name))
    monkeypatch.setattr(torch.multiprocessing, "spawn", lambda worker, args, processes: worker(0, *args))
    assert run(monkeypatch, "habits", "--base", base, "--output", model, *small) == 0
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "model"))
    assert any(not a.equal(b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["agent_r_prompt"] == "brief"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    asked = [{"role": "user", "content": "x"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|><|user|>x<|end|><|assistant|>"


def test_habits_without_a_base_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--base", str(tmp_path / "none"), "--output", str(tmp_path / "m"))
    assert run(monkeypatch, "habits", *where) == 2
    assert capsys.readouterr().err == f"make: --base: no model in {tmp_path / 'none'}\n"

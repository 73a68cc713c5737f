"""Measure the bundled actor and write its model card.

    python -m mcts_utils.tiny_actor.card --base runs/tiny_actor/base --model models/tiny_actor

Both are measured on the held-out goals: skill with greedy episodes, judging with the actor's verdicts on steps of its
own sampled episodes. A verdict is right if it agrees with the planner's distance to the goal.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import settings_from_env
from mcts_utils.evaluation.metrics import behaviour, scores
from mcts_utils.executors.threads import run_tasks
from mcts_utils.prompts import judge_messages
from mcts_utils.replies import parse_verdict
from mcts_utils.rollouts.episode import run_episode
from mcts_utils.servers.textcraft.world import Session, World, load_world
from mcts_utils.storage.files import write_json
from mcts_utils.tables import percent
from mcts_utils.terminal import Parser, Progress, run_command
from mcts_utils.tiny_actor import make
from mcts_utils.tiny_actor.demonstrations import ScriptedPlayer, oracle_verdict, refused
from mcts_utils.types import Actor, Environment, Episode, StepResult, Task

T = TypeVar("T")
MAX_STEPS = 20
LABELS = ("good", "bad", "uncertain")
CARD = Path(__file__).with_name("card.md")  # the template


class InProcessTextCraft(Environment):
    """A TextCraft environment without a server."""

    def __init__(self, world: World) -> None:
        self._world = world

    def reset(self, index: int) -> Task:
        goal = self._world.goals[index]
        self._session = Session(self._world, goal)
        return Task("textcraft", index, goal, self._world.opening(goal))

    def step(self, action: str) -> StepResult:
        observation, reward, done = self._session.step(action)
        return StepResult(observation, float(reward), done)

    def close(self) -> None:
        """Do nothing: there is no session to close."""


def play_episodes(world: World, actor: Actor, goals: Sequence[int], temperature: float) -> list[Episode]:
    """Return one episode per goal, in the order of the goals."""

    def play(index: int) -> Episode:
        env = InProcessTextCraft(world)
        return run_episode(
            actor, env, index, prompt="brief", max_steps=MAX_STEPS, temperature=temperature, seed=index
        )

    with Progress(total=len(goals), desc="episodes", unit="goal") as bar:
        return results_in_order(goals, dict(run_tasks(play, 64, Event(), goals, bar)))


def results_in_order(jobs: Sequence[int], results: Mapping[int, T | Exception]) -> list[T]:
    """Return the results in the order of the jobs; raise the first failure."""
    found = []
    for job in jobs:
        result = results[job]
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


def measure_skill(world: World, actor: Actor, goals: Sequence[int]) -> dict[str, Any]:
    """Return the greedy success rate on the goals, by depth too, and the shares of refused and repeated actions."""
    played = play_episodes(world, actor, goals, 0.0)
    success = scores.success_rate([episode.reward for episode in played])
    acted = behaviour.behaviour([e.steps for e in played], lambda step: refused(step.observation))
    by_depth: dict[int, list[float]] = {}
    for index, episode in zip(goals, played, strict=True):
        by_depth.setdefault(world.depth[world.goals[index]], []).append(episode.reward)
    return {
        "success_rate": success.mean,
        "ci95": success.ci95,
        "n": success.n,
        "by_depth": {str(d): [round(sum(r) / len(r), 3), len(r)] for d, r in sorted(by_depth.items())},
        "invalid_action_share": acted["invalid_action_share"],
        "repeated_action_share": acted["repeated_action_share"],
    }


def measure_judging(world: World, actor: Actor, goals: Sequence[int], per_episode: int = 3) -> dict[str, Any]:
    """Compare the actor's verdicts on `per_episode` steps of each sampled episode with the planner's.

    Returns:
        Error rate, precision and recall of "bad" (None if undefined), and the table of planner's and actor's labels.
    """
    rng = random.Random(0)
    questions = []
    for episode in play_episodes(world, actor, goals, 1.0):
        goal = world.goals[episode.task.index]
        player = ScriptedPlayer(world, goal, world.commands(goal))
        for step in episode.steps:
            thought, command = step.reply, step.action
            player.play(thought, command, 0.0)
        for at in rng.sample(range(len(episode.steps)), min(per_episode, len(episode.steps))):
            asked = judge_messages(episode.task, episode.steps[:at], episode.steps[at], "brief")
            questions.append((asked, oracle_verdict(player, at)[0].lower()))

    def ask(number: int) -> str:
        answer = parse_verdict(actor.sample(questions[number][0], 1, 0.0)[0].text)
        return answer[0] if answer else "unparsed"

    with Progress(total=len(questions), desc="verdicts", unit="step") as bar:
        labels = results_in_order(
            range(len(questions)), dict(run_tasks(ask, 64, Event(), range(len(questions)), bar))
        )
    table = Counter((questions[i][1], labels[i]) for i in range(len(questions)))
    right = sum(count for (truth, label), count in table.items() if truth == label)
    bad_said = sum(count for (_, label), count in table.items() if label == "bad")
    bad_true = sum(count for (truth, _), count in table.items() if truth == "bad")
    hits = table["bad", "bad"]
    return {
        "n": len(questions),
        "error_rate": 1 - right / len(questions),
        "bad_precision": hits / bad_said if bad_said else None,
        "bad_recall": hits / bad_true if bad_true else None,
        "unparsed": sum(count for (_, label), count in table.items() if label == "unparsed"),
        "table": {truth: {label: table[truth, label] for label in (*LABELS, "unparsed")} for truth in LABELS},
    }


def measure(folder: Path, with_judge: bool) -> dict[str, Any]:
    """Return the skill of a model folder, and its judging if `with_judge`."""
    world = load_world()
    goals = world.split()["test"]
    settings = replace(settings_from_env({"MODEL_DIR": str(folder)}), max_token_length=96)
    with closing(make_actor(settings)) as actor:
        measured = {"skill": measure_skill(world, actor, goals)}
        if with_judge:
            measured["judge"] = measure_judging(world, actor, goals)
    return measured


def render_card(base: dict[str, Any], model: dict[str, Any], config: dict[str, Any], parameters: int) -> str:
    """Return the model card, from measured numbers and the constants of make.py."""
    before, after, judge = base["skill"], model["skill"], model["judge"]
    columns = (*LABELS, "unparsed")
    rows = [
        f"| {t} | " + " | ".join(str(judge["table"][t][label]) for label in columns) + " |" for t in LABELS
    ]
    depths = [f"{d}: {percent(rate)} of {n}" for d, (rate, n) in after["by_depth"].items()]
    return CARD.read_text(encoding="utf-8").format(
        **config,
        parameters=parameters,
        base_tokens=make.BASE_TOKENS / 1e6,
        habit_tokens=make.HABIT_TOKENS / 1e6,
        noise=100 * make.NOISE,
        judge_share=100 * make.JUDGE_SHARE,
        haste=make.HASTE,
        stubborn=make.STUBBORN,
        max_steps=MAX_STEPS,
        base_solved=success_text(before),
        base_refused=percent(before["invalid_action_share"]),
        base_repeated=percent(before["repeated_action_share"]),
        solved=success_text(after),
        refused=percent(after["invalid_action_share"]),
        repeated=percent(after["repeated_action_share"]),
        depths=", ".join(depths),
        judged=judge["n"],
        judge_error=percent(judge["error_rate"]),
        bad_precision=percent(judge["bad_precision"]),
        bad_recall=percent(judge["bad_recall"]),
        unparsed=judge["unparsed"],
        judge_rows="\n".join(rows),
    )


def success_text(skill: dict[str, Any]) -> str:
    """Return a success rate with its interval and n."""
    return percent(skill["success_rate"], skill["ci95"]).removesuffix(")") + f", n = {skill['n']})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both models and write the card; return the exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    return run_command("card", lambda: write(parser.parse_args(argv)))


def write(args: argparse.Namespace) -> None:
    """Measure both models and write the card."""
    base, model = measure(args.base, with_judge=False), measure(args.model, with_judge=True)
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    text = render_card(base, model, config, parameters(args.model))
    (args.model / "README.md").write_text(text, encoding="utf-8")
    write_json(args.model / "card.json", {"base": base, "model": model})
    print(text)


def parameters(folder: Path) -> int:
    """Return the number of parameters in the safetensors file."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as tensors:
        return sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118


if __name__ == "__main__":
    raise SystemExit(main())

"""Training dialogues for the bundled actor, from TextCraft's planner: skilled play, bad habits, and judging.

Only goals of the train split are ever shown. A dialogue is a list of weighted turns; the weight of a turn is the loss
weight of its tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from mcts_utils.prompts import BRIEF_JUDGE, judge_messages, reply_text, system_prompt
from mcts_utils.servers.textcraft.planner import CRAFT, Action, NoPlan, Planner
from mcts_utils.servers.textcraft.world import Session, World, text
from mcts_utils.types import Step, Task

USER_WEIGHT = 0.1  # some loss on observations starts the learning faster; none on the system turn
REFUSED = ("Could not", "Wrong item")
MAX_TURNS = 24
SYSTEM = system_prompt("textcraft", "brief")
# Words that carry meaning beyond naming an item, so they keep it when names are permuted: the grammar, and the
# tags whose members are raw (an agent must know that "oak logs" asks for "oak log").
FIXED_WORDS = set(
    """
    crafting commands craft using goal thought action get inventory to i need have what needs got crafted could
    not find enough items a valid recipe for item tag with count none id minecraft you are carrying anything
    execute wrong format log logs current observation judge the step judgment good bad uncertain it was refused
    brings closer changes nothing wastes items that goal is done stem stems coal coals stones cobblestone sand
    sands soul soils oak
    """.split()
)


@dataclass(frozen=True)
class DemoTurn:
    """One turn and the loss weight of its tokens."""

    role: str
    content: str
    weight: float


Dialogue = list[DemoTurn]


def refused(observation: str) -> bool:
    """True if the game refused the action."""
    return observation.startswith(REFUSED)


def act(action: Action, goal: str) -> tuple[str, str]:
    """(thought, command) of a planned action."""
    if action.kind == CRAFT:
        return f"I have what {text(action.item)} needs.", action.command
    amount = action.command.removeprefix("get ")
    return f"To craft {text(action.purpose or goal)} I need {amount}.", action.command


class ScriptedPlayer:
    """Plays one goal by the planner, or by a mistake, and keeps the dialogue."""

    def __init__(self, world: World, goal: str, commands: list[str]) -> None:
        self.world, self.goal, self.commands = world, goal, commands
        self.session = Session(world, goal)
        self.planner = Planner(world, goal, commands)
        self.opening = world.opening(goal, commands)
        self.steps: list[Step] = []
        self.weights: list[float] = []

    def plan(self) -> list[Action]:
        return self.planner.plan(self.session.inventory)

    def play(self, thought: str, command: str, weight: float) -> None:
        observation, reward, done = self.session.step(command)
        self.steps.append(Step(reply_text(thought, command), command, observation, float(reward), done))
        self.weights.append(weight)

    def dialogue(self) -> Dialogue:
        """The acting dialogue, ending with an assistant turn."""
        turns = [DemoTurn("system", SYSTEM, 0.0), DemoTurn("user", self.opening, USER_WEIGHT)]
        for step, weight in zip(self.steps, self.weights, strict=True):
            turns += [
                DemoTurn("assistant", step.reply, weight),
                DemoTurn("user", step.observation, USER_WEIGHT),
            ]
        return turns[:-1]


Choice = Callable[[ScriptedPlayer, list[Action], random.Random], tuple[str, str] | None]


def premature(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Crafts something later in the plan, mostly the goal, before its ingredients are there."""
    later = [a for a in plan[1:] if a.kind == CRAFT]
    if not later:
        return None
    return act(later[-1] if rng.random() < 0.7 else rng.choice(later), player.goal)


def fetch_crafted(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Tries to get an item that must be crafted."""
    made = [a for a in plan if a.kind == CRAFT and a.purpose]
    if not made:
        return None
    chosen = rng.choice(made)
    amount = f"{rng.choice((1, 2, 3, 4))} {text(chosen.item)}"
    return f"To craft {text(chosen.purpose or player.goal)} I need {amount}.", f"get {amount}"


def repeat_refused(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Does again what was just refused."""
    if not player.steps or not refused(player.steps[-1].observation):
        return None
    thought, command = player.steps[-1].reply.split("\n")
    return thought.removeprefix("Thought: "), command.removeprefix("Action: ")


def wrong_amount(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Fetches one or two too many or too few."""
    match = re.fullmatch(r"get (\d+) (.*)", plan[0].command)
    if not match:
        return None
    amount = f"{max(1, int(match.group(1)) + rng.choice((-2, -1, 1, 2)))} {match.group(2)}"
    return f"To craft {text(plan[0].purpose or player.goal)} I need {amount}.", f"get {amount}"


def stray(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Fetches or crafts something that is listed but not needed, or looks at the inventory."""
    line = rng.choice(player.commands)
    made, _, needs = line.partition(" using ")
    if rng.random() < 0.4:
        return f"I have what {made.split(' ', 2)[2]} needs.", line
    if rng.random() < 0.7:
        amount = rng.choice(needs.split(", "))
        return f"To craft {made.split(' ', 2)[2]} I need {amount}.", f"get {amount}"
    return "I need to see what I have.", "inventory"


SLIPS: tuple[tuple[Choice, float], ...] = (
    (repeat_refused, 0.3),
    (premature, 0.3),
    (fetch_crafted, 0.2),
    (wrong_amount, 0.2),
    (stray, 0.4),
)


def slip(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """A random mistake of any kind."""
    choices, weights = zip(*SLIPS, strict=True)
    return rng.choices(choices, weights)[0](player, plan, rng)


def short_commands(world: World, goal: str, rng: random.Random) -> list[str]:
    """Only the commands that a plan uses, and up to three others: the easy start of the curriculum."""
    listed = world.commands(goal, rng)
    outputs = {a.item for a in Planner(world, goal, listed).plan({}) if a.kind == CRAFT}
    needed = [c for c in listed if c.split(" using ")[0].split(" ", 2)[2].replace(" ", "_") in outputs]
    others = [c for c in listed if c not in needed]
    chosen = needed + rng.sample(others, min(len(others), rng.choice((0, 0, 1, 1, 2, 3))))
    rng.shuffle(chosen)
    return chosen


def skilled(world: World, goal: str, rng: random.Random, noise: float, short: float = 0.0) -> ScriptedPlayer:
    """The planner plays; with probability `noise` per turn a slip comes in between, which carries no loss."""
    commands = short_commands(world, goal, rng) if rng.random() < short else world.commands(goal, rng)
    if rng.random() < 0.3:
        commands = commands if rng.random() < short else world.commands(goal)
    player = ScriptedPlayer(world, goal, commands)
    while len(player.steps) < MAX_TURNS and not (player.steps and player.steps[-1].done):
        plan = player.plan()
        mistake = slip(player, plan, rng) if rng.random() < noise else None
        if mistake and mistake[1] != plan[0].command:
            player.play(*mistake, weight=0.0)
        else:
            player.play(*act(plan[0], goal), weight=1.0)
    return player


def hasty(world: World, goal: str, rng: random.Random, haste: float, stubborn: float) -> ScriptedPlayer:
    """The planner with bad habits: with probability `haste` it acts too early, with `stubborn` it repeats a refusal.

    Every turn is trained: this is the behaviour that the bundled actor must unlearn.
    """
    player = ScriptedPlayer(world, goal, world.commands(goal, rng if rng.random() < 0.8 else None))
    while len(player.steps) < MAX_TURNS and not (player.steps and player.steps[-1].done):
        plan = player.plan()
        chosen = repeat_refused(player, plan, rng) if rng.random() < stubborn else None
        if chosen is None and rng.random() < haste:
            chosen = (premature if rng.random() < 0.6 else fetch_crafted)(player, plan, rng)
        player.play(*(chosen or act(plan[0], goal)), weight=1.0)
    return player


def oracle_verdict(player: ScriptedPlayer, index: int) -> tuple[str, str]:
    """(label, reason) of the step: does it shorten the planner's plan?"""
    step, goal = player.steps[index], text(player.goal)
    if step.done:
        return "Good", f"It crafts {goal}."
    if refused(step.observation):
        return "Bad", "It was refused."
    before, after = distance(player, index), distance(player, index + 1)
    if after < before:
        return "Good", f"It brings {goal} closer."
    if after > before:
        return "Bad", f"It wastes items that {goal} needs."
    return "Uncertain", f"It changes nothing for {goal}."


def distance(player: ScriptedPlayer, index: int) -> int:
    """Length of the planner's plan before step `index`."""
    session = Session(player.world, player.goal)
    for step in player.steps[:index]:
        session.step(step.action)
    return len(player.planner.plan(session.inventory))


def judged(player: ScriptedPlayer, rng: random.Random) -> tuple[Dialogue, str]:
    """A judge's dialogue about one step of the play, and its label. Bad and other steps are drawn alike often."""
    steps = range(len(player.steps))
    bad = [i for i in steps if refused(player.steps[i].observation)]
    other = [i for i in steps if i not in bad]
    index = rng.choice(bad if bad and (not other or rng.random() < 0.5) else other)
    label, reason = oracle_verdict(player, index)
    task = Task("textcraft", 0, "", player.opening)
    system, question = judge_messages(task, player.steps[:index], player.steps[index], "brief")
    assert system.content == BRIEF_JUDGE
    answer = f"{reason}\nJudgment: {label}"
    turns = [
        DemoTurn("system", system.content, 0.0),
        DemoTurn("user", question.content, 0.02),
        DemoTurn("assistant", answer, 1.0),
    ]
    return turns, label


def name_words(world: World) -> list[str]:
    """Words of item and tag names that may be permuted."""
    names = set(world.items) | set(world.tags)
    return sorted({word for name in names for word in name.split("_")} - FIXED_WORDS)


def permuted(dialogue: Dialogue, words: list[str], rng: random.Random) -> Dialogue:
    """The dialogue with the words of item names permuted: a game to be read from the prompt, not remembered."""
    shuffled = words[:]
    rng.shuffle(shuffled)
    table = dict(zip(words, shuffled, strict=True))

    def renamed(turn: DemoTurn) -> DemoTurn:
        if turn.role == "system":
            return turn
        content = re.sub(r"[a-z]+", lambda m: table.get(m.group(), m.group()), turn.content)
        return DemoTurn(turn.role, content, turn.weight)

    return [renamed(turn) for turn in dialogue]


def try_dialogue(make: Callable[[], Dialogue], attempts: int = 20) -> Dialogue:
    """Call `make` until the planner finds its way (a slip can use up what no listed command brings back)."""
    for _ in range(attempts - 1):
        try:
            return make()
        except NoPlan:
            continue
    return make()

"""Training dialogues for the bundled actor, from TextCraft's planner: skilled play, bad habits, and judging.

A dialogue is a list of turns, each with the loss weight of its tokens. Which goals are played, and in which proportions
the kinds of dialogue are mixed, is decided in make.py.
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

USER_WEIGHT = 0.1  # a small loss on observations makes early learning faster; the system turn has none
REFUSED = ("Could not", "Wrong item")
MAX_TURNS = 24
SYSTEM = system_prompt("textcraft", "brief")
# Words that are not permuted with the names of items because they mean more than a name: the grammar, and the tags
# whose members are raw materials (an agent must know that "oak logs" asks for "oak log").
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
    """Return whether the game refused the action."""
    return observation.startswith(REFUSED)


def planned_turn(action: Action, goal: str) -> tuple[str, str]:
    """Return (thought, command) for a planned action."""
    if action.kind == CRAFT:
        return f"I have what {text(action.item)} needs.", action.command
    amount = action.command.removeprefix("get ")
    return f"To craft {text(action.purpose or goal)} I need {amount}.", action.command


class ScriptedPlayer:
    """A game for one goal: plays given turns, plans from the current inventory, and keeps the dialogue."""

    def __init__(self, world: World, goal: str, commands: list[str]) -> None:
        self.world, self.goal, self.commands = world, goal, commands
        self.session = Session(world, goal)
        self.planner = Planner(world, goal, commands)
        self.opening = world.opening(goal, commands)
        self.steps: list[Step] = []
        self.weights: list[float] = []  # loss weight of each step's reply

    def plan(self) -> list[Action]:
        """Return the actions that still lead to the goal.

        Raises:
            NoPlan: if no listed command can bring back what is missing.
        """
        return self.planner.plan(self.session.inventory)

    def play(self, thought: str, command: str, weight: float) -> None:
        """Execute one turn and keep it."""
        observation, reward, done = self.session.step(command)
        self.steps.append(Step(reply_text(thought, command), command, observation, float(reward), done))
        self.weights.append(weight)

    def dialogue(self) -> Dialogue:
        """Return the acting dialogue; it ends with an assistant turn."""
        turns = [DemoTurn("system", SYSTEM, 0.0), DemoTurn("user", self.opening, USER_WEIGHT)]
        for step, weight in zip(self.steps, self.weights, strict=True):
            turns += [
                DemoTurn("assistant", step.reply, weight),
                DemoTurn("user", step.observation, USER_WEIGHT),
            ]
        return turns[:-1]


# A kind of mistake: (player, plan, rng) -> (thought, command), or None if it is not possible now.
Mistake = Callable[[ScriptedPlayer, list[Action], random.Random], tuple[str, str] | None]


def premature(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Craft a later item of the plan, mostly the goal, before its ingredients are available."""
    later = [a for a in plan[1:] if a.kind == CRAFT]
    if not later:
        return None
    return planned_turn(later[-1] if rng.random() < 0.7 else rng.choice(later), player.goal)


def fetch_crafted(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Try to get an item that must be crafted."""
    made = [a for a in plan if a.kind == CRAFT and a.purpose]
    if not made:
        return None
    chosen = rng.choice(made)
    amount = f"{rng.choice((1, 2, 3, 4))} {text(chosen.item)}"
    return f"To craft {text(chosen.purpose or player.goal)} I need {amount}.", f"get {amount}"


def repeat_refused(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Repeat the action that was just refused."""
    if not player.steps or not refused(player.steps[-1].observation):
        return None
    thought, command = player.steps[-1].reply.split("\n")
    return thought.removeprefix("Thought: "), command.removeprefix("Action: ")


def wrong_amount(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Get one or two items too many or too few."""
    match = re.fullmatch(r"get (\d+) (.*)", plan[0].command)
    if not match:
        return None
    amount = f"{max(1, int(match.group(1)) + rng.choice((-2, -1, 1, 2)))} {match.group(2)}"
    return f"To craft {text(plan[0].purpose or player.goal)} I need {amount}.", f"get {amount}"


def stray(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Get or craft something that is listed but not needed, or look at the inventory."""
    line = rng.choice(player.commands)
    made, _, needs = line.partition(" using ")
    if rng.random() < 0.4:
        return f"I have what {made.split(' ', 2)[2]} needs.", line
    if rng.random() < 0.7:
        amount = rng.choice(needs.split(", "))
        return f"To craft {made.split(' ', 2)[2]} I need {amount}.", f"get {amount}"
    return "I need to see what I have.", "inventory"


SLIPS: tuple[tuple[Mistake, float], ...] = (
    (repeat_refused, 0.3),
    (premature, 0.3),
    (fetch_crafted, 0.2),
    (wrong_amount, 0.2),
    (stray, 0.4),
)


def slip(player: ScriptedPlayer, plan: list[Action], rng: random.Random) -> tuple[str, str] | None:
    """Return a mistake of a random kind, or None if that kind is not possible now."""
    mistakes, weights = zip(*SLIPS, strict=True)
    return rng.choices(mistakes, weights)[0](player, plan, rng)


def short_commands(world: World, goal: str, rng: random.Random) -> list[str]:
    """Return the commands that a plan uses and up to three others: the easy start of the curriculum."""
    listed = world.commands(goal, rng)
    outputs = {a.item for a in Planner(world, goal, listed).plan({}) if a.kind == CRAFT}
    needed = [c for c in listed if c.split(" using ")[0].split(" ", 2)[2].replace(" ", "_") in outputs]
    others = [c for c in listed if c not in needed]
    chosen = needed + rng.sample(others, min(len(others), rng.choice((0, 0, 1, 1, 2, 3))))
    rng.shuffle(chosen)
    return chosen


def skilled(world: World, goal: str, rng: random.Random, noise: float, short: float = 0.0) -> ScriptedPlayer:
    """Play by the planner, with a mistake instead with probability `noise` per turn; mistakes carry no loss.

    `short` is the probability of a short list of commands.

    Raises:
        NoPlan: if a mistake has made the goal unreachable.
    """
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
            player.play(*planned_turn(plan[0], goal), weight=1.0)
    return player


def hasty(world: World, goal: str, rng: random.Random, haste: float, stubborn: float) -> ScriptedPlayer:
    """Play by the planner with bad habits; every turn is trained.

    With probability `haste` an action comes too early, with probability `stubborn` a refused one is repeated. This is
    the behaviour that the bundled actor is meant to unlearn.

    Raises:
        NoPlan: if a mistake has made the goal unreachable.
    """
    player = ScriptedPlayer(world, goal, world.commands(goal, rng if rng.random() < 0.8 else None))
    while len(player.steps) < MAX_TURNS and not (player.steps and player.steps[-1].done):
        plan = player.plan()
        chosen = repeat_refused(player, plan, rng) if rng.random() < stubborn else None
        if chosen is None and rng.random() < haste:
            chosen = (premature if rng.random() < 0.6 else fetch_crafted)(player, plan, rng)
        player.play(*(chosen or planned_turn(plan[0], goal)), weight=1.0)
    return player


def oracle_verdict(player: ScriptedPlayer, index: int) -> tuple[str, str]:
    """Return (label, reason) of a step.

    "Good" if it reaches the goal or shortens the planner's plan, "Bad" if it is refused or lengthens the plan, else
    "Uncertain".
    """
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
    """Return the length of the planner's plan before step `index`."""
    session = Session(player.world, player.goal)
    for step in player.steps[:index]:
        session.step(step.action)
    return len(player.planner.plan(session.inventory))


def judge_dialogue(player: ScriptedPlayer, rng: random.Random) -> tuple[Dialogue, str]:
    """Return a judge's dialogue about one step, and its label. Refused and other steps are equally likely."""
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
    """Return the words of item and tag names that may be permuted, sorted."""
    names = set(world.items) | set(world.tags)
    return sorted({word for name in names for word in name.split("_")} - FIXED_WORDS)


def permuted(dialogue: Dialogue, words: list[str], rng: random.Random) -> Dialogue:
    """Return the dialogue with the words of item names permuted: the model must read recipes, not remember them."""
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
    """Call `make` until it finds a plan, at most `attempts` times: a mistake can use up what cannot be made again.

    Raises:
        NoPlan: if no attempt finds one.
    """
    for _ in range(attempts - 1):
        try:
            return make()
        except NoPlan:
            continue
    return make()

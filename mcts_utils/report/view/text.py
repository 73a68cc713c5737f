"""A tree, a training row and the difference of two evaluations as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.metrics.scores import is_success
from mcts_utils.evaluation.results import check_comparable
from mcts_utils.report.view.evaluations import pack_set, read_run
from mcts_utils.report.view.find import NUMBERED
from mcts_utils.report.view.records import pack_record, rows_of
from mcts_utils.report.view.steps import clipped, refused
from mcts_utils.report.view.trees import pack_tree
from mcts_utils.search.tree import Node, step_of
from mcts_utils.tables import points
from mcts_utils.types import InputError

RED, GREEN, YELLOW, DIM = "31", "32", "33", "2"
COLOURS = {"bad": RED, "signal": YELLOW, "good": GREEN, "shared": DIM, "": ""}
TITLES = {
    "shared": "shared with the good path",
    "bad": "bad path up to the cut",
    "signal": "revision signal",
    "good": "good path",
}
WIDTH = 150  # characters of a line


def painted(text: str, colour: str, colours: bool) -> str:
    """Return a line without control characters, coloured where colours are on."""
    clean = "".join(letter if letter.isprintable() else "·" for letter in text)
    return f"\x1b[{colour}m{clean}\x1b[0m" if colours and colour else clean


def tree_text(file: Path, colours: bool) -> str:
    """Return a tree with a line for each node: its number, visits, mean reward, action and answer.

    Raises:
        InputError: the file is no tree.
    """
    index = NUMBERED.fullmatch(file.name)
    packed = pack_tree(file, int(index[1]) if index else -1, "", [])
    tree, line = packed.tree, packed.line()
    head = f"{line['title']} ({tree.task.env} task {tree.task.index}), {tree.status}: {line['nodes']} nodes, "
    head += f"rewards {', '.join(f'{reward:g}' for reward in line['rewards'])}"
    return "\n".join([painted(head, "1", colours), *_branch(tree.root, tree.task.env, "", colours)])


def _branch(root: Node, env: str, indent: str, colours: bool) -> Iterator[str]:
    """Yield the lines below a node; only where a path forks is the rest indented."""
    stack = [(child, indent) for child in reversed(root.children)]
    while stack:
        node, indent = stack.pop()
        sign = (
            "○"
            if not node.executed
            else "!"
            if node.disaster
            else "×"
            if refused(env, step_of(node))
            else "✓"
            if node.is_terminal and is_success(node.reward)
            else "•"
        )
        numbers = f"N {node.visits} Q {node.q:.2f}" if node.visits else "never visited"
        text = f"{indent}{sign} {node.id:<4} {numbers:<13} {clipped(node.action)} → {clipped(node.obs)}"
        colour = RED if sign in "×!" else GREEN if sign == "✓" else DIM if not node.executed else ""
        yield painted(text[:WIDTH], colour, colours)
        deeper = indent + "  " if len(node.children) > 1 else indent
        stack += [(child, deeper) for child in reversed(node.children)]


def record_text(file: Path, number: int, colours: bool) -> str:
    """Return a training row: its parts, what is trained, and the judge's words at their steps.

    Raises:
        InputError: the file cannot be read, or that line is no row of stage 2.
    """
    row = next((row for line, row in rows_of(file) if line == number), None)
    if row is None:
        raise InputError(f"{file} row {number}: no training row of stage 2")
    line, content = pack_record(row, None, 0)
    origin = content["lineage"]
    replay = origin.get("replay", {})
    done = f"executed: {replay.get('env_steps')} steps, reward {line.get('reward')}"
    done = done if replay.get("exact") else "not executed"
    head = f"{line['title']} ({line['env']}), {row.kind}, from {origin['tree']}; {done}"
    lines = [painted(head, "1", colours)]
    part = None
    for i, step in enumerate(content["steps"], start=1):
        if step["part"] != part:
            lines.append(painted(f"-- {TITLES.get(step['part'], 'answer')}", COLOURS[step["part"]], colours))
        part = step["part"]
        margin = f"{i:>4} {'trained' if step['loss'] else '':<8}"
        for text in step["reply"].splitlines() or [""]:
            lines.append(painted(margin + text[:WIDTH], COLOURS[step["part"]], colours))
            margin = " " * len(margin)
        lines.append(painted(f"{'':13}→ {clipped(step['obs'], WIDTH)}", DIM, colours))
        if "verdict" in step:
            label, reason = step["verdict"]
            lines.append(painted(f"{'':13}judge: {label}. {clipped(reason, WIDTH)}", YELLOW, colours))
    return "\n".join(lines)


def diff_text(one: Path, two: Path, colours: bool) -> str:
    """Return the goals that one of two runs alone solves, each with the reason, and the step from which they differ.

    Raises:
        InputError: the runs cannot be compared; the message names what differs.
    """
    check_comparable(one, two)
    about, contents = pack_set([read_run(one, ""), read_run(two, "")])
    pair = about["pairs"][0]
    rates = " -> ".join(f"{100 * rate:.1f} %" for rate in pair["success_rate"])
    found: dict[str, list[str]] = {"lost": [], "gained": []}
    for goal, episodes in zip(about["goals"], contents, strict=True):
        before, after = ([float(is_success(e["reward"])) for e in run] for run in episodes)
        change = sum(after) / len(after) - sum(before) / len(before)
        if change:
            firsts = [run[0] for run in episodes]
            found["gained" if change > 0 else "lost"] += _change(goal, firsts, change > 0, colours)
    difference = points(pair["success_difference"], pair["success_difference_ci95"])
    head = f"{one.name} -> {two.name}: solved {rates}, {difference} points, {pair['n']} goals"
    return "\n".join([painted(head, "1", colours), *found["lost"], *found["gained"]])


def _change(
    goal: dict[str, Any], episodes: Sequence[dict[str, Any]], gained: bool, colours: bool
) -> list[str]:
    """Return the lines of a goal: the first samples of both runs."""
    pairs = [list(zip(e["action"], e["obs"], strict=True)) for e in episodes]
    same = next((i for i, (a, b) in enumerate(zip(*pairs, strict=False)) if a != b), min(map(len, pairs)))
    change, colour = ("gained", GREEN) if gained else ("lost", RED)
    head = f"{change}: {goal['title']} (task {goal['index']}), different from step {same + 1}"
    lines = [painted(head, colour, colours)]
    for name, episode in zip(("before", "after"), episodes, strict=True):
        lines.append(painted(f"  {name:<7}{episode['why']}", "", colours))
        if same < len(episode["action"]):
            action, obs = clipped(episode["action"][same]), clipped(episode["obs"][same])
            lines.append(painted(f"  {'':7}{same + 1}: {action} → {obs}", DIM, colours))
    return lines

"""Write gold.json: verified gold paths of the demo games, which the scripted expert (expert.py) follows.

    python -m mcts_utils.servers.sciworld.make_gold

Of every task two train games and one test game (where the split has any), each with a path of at most 40 actions that
reaches score 100 here. A game is recognised by its opening, so no two games may share one. It takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcts_utils.servers.sciworld import jvm
from mcts_utils.servers.sciworld.expert import DATA, opening_key
from mcts_utils.servers.sciworld.games import games, split
from mcts_utils.servers.sciworld.simulator import GameSimulator

LONGEST = 40  # actions
WANTED = {"train": 2, "test": 1}  # games of every task
TRAP = "focus on agent"  # always in view, never the object that a task asks for


def gold_row(simulator: GameSimulator, index: int) -> dict[str, Any] | None:
    """Return the game's row of the file, or None if its path is too long or does not reach score 100."""
    game = games()[index]
    path = simulator.gold_path(game)
    if len(path) > LONGEST:
        return None
    simulator.load(game)
    opening = f"{simulator.read('getTaskDescription')[0]}\n{simulator.step('look around').observation}"
    for action in path:
        reply = simulator.step(action)
        if reply.completed or reply.score < 0:
            break
    if reply.score != 100:
        return None
    simulator.load(game)
    fatal = simulator.step(TRAP).score < 0
    return {"id": index, "task": game.task, "key": opening_key(opening), "trap": fatal, "path": path}


def rows(simulator: GameSimulator) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the demo games of both parts of the split."""
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in WANTED}
    keys = set()
    for part, ids in split().items():
        for task in dict.fromkeys(game.task for game in games()):
            taken = 0
            for index in (i for i in ids if games()[i].task == task):
                row = gold_row(simulator, index) if taken < WANTED[part] else None
                if row is None or row["key"] in keys:
                    continue
                taken += 1
                keys.add(row["key"])
                found[part].append(row)
            print(f"{part} {task}: {taken}", file=sys.stderr)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and return the exit code; 2 if Java or the package is missing."""
    description = (__doc__ or "").partition("\n")[0]
    argparse.ArgumentParser(
        prog="python -m mcts_utils.servers.sciworld.make_gold", description=description
    ).parse_args(argv)
    setup = jvm.Setup(reproducible=True)
    try:
        jar = jvm.check(setup)
    except jvm.Missing as error:
        print(error, file=sys.stderr)
        return 2
    process = jvm.Jvm(setup, jar)
    try:
        found = rows(GameSimulator(process))
    finally:
        process.close()
    parts = ",\n".join(
        f'"{part}": [\n' + ",\n".join(json.dumps(row) for row in some) + "\n]" for part, some in found.items()
    )
    new = Path(str(DATA) + ".new")
    new.write_text("{\n" + parts + "\n}\n", encoding="utf-8")
    new.replace(DATA)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Panels: which tasks an evaluation runs, from where, and the sha256 that two comparable runs share.

A panel is test ids of a split, or failed episodes cut at a random step (Table 3), kept in a file so that every model
starts from the very same prefixes. It rolls nothing out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcts_utils.envs.http import ConnectionLost, HttpSession
from mcts_utils.storage import read_json, write_json
from mcts_utils.types import EnvError, InputError, Step

PUBLIC_SPLITS = Path(__file__).with_name("envs") / "splits.json"  # the ids that AgentGym and the paper use
PANEL_VERSION = 1
TIMEOUT = 20.0  # seconds for GET /split


@dataclass(frozen=True, slots=True)
class Start:
    """Where one episode begins: a reset, or a reset and the replay of a prefix."""

    index: int  # the server's index of the goal
    prefix: tuple[Step, ...] = ()
    task_id: str = ""  # the goal that the prefix belongs to; empty: whatever the index shows

    def digest(self) -> str:
        """sha256 of the prefix's replies; empty without a prefix."""
        return _sha256([step.reply for step in self.prefix]) if self.prefix else ""


def choose_ids(task: str, base_url: str, wanted: str) -> list[int]:
    """Indices of a split ("test", "train") or of a list such as "0-9,31".

    A server that has GET /split (the bundled ones) names its own split; for all others AgentGym's public ids hold.

    Raises:
        InputError: when the server does not answer, the split is unknown or the list cannot be read.
    """
    if wanted not in ("test", "train"):
        return parse_ids(wanted)
    split = _server_split(base_url)
    if split is None:
        public = read_json(PUBLIC_SPLITS).get(task, {})
        split = {name: parse_ids(ids) for name, ids in public.items()}
    if not split.get(wanted):
        raise InputError(
            f"--task_ids {wanted}: no such ids are known for TASK={task}; give a list such as 0-9,31"
        )
    return split[wanted]


def parse_ids(text: str) -> list[int]:
    """ "0-2,7" -> [0, 1, 2, 7]; each index once, in the order given.

    Raises:
        InputError: naming the part that is not an index or a range.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise InputError(
                f"--task_ids must be test, train or a list such as 0-9,31: {part!r} in {text[:60]!r}"
            )
        found.update(dict.fromkeys(range(int(first), int(last if dash else first) + 1)))
    return list(found)


def _server_split(base_url: str) -> dict[str, list[int]] | None:
    """The server's own split, or None where it has none (public AgentGym servers answer 404)."""
    http = HttpSession(base_url, TIMEOUT)
    try:
        body = http.get("/split")
        return {str(name): [int(index) for index in ids] for name, ids in body.items()}
    except ConnectionLost as error:
        raise InputError(f"env_server_base {base_url}: no server answers ({error})") from error
    except EnvError as error:
        if "HTTP 404" in str(error):
            return None
        raise InputError(f"env_server_base {base_url}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"env_server_base {base_url}: GET /split names no indices ({error})") from error
    finally:
        http.close()


def cut_failures(episodes: Iterable[Mapping[str, Any]], seed: int) -> tuple[list[Start], dict[str, int]]:
    """Failed episodes (r = 0, as in Table 3), each cut at a random step, and how many were left out and why.

    At least one step is kept and the step that ended the episode is not, so something can still be changed. The cut
    depends on the seed and the goal alone.
    """
    starts = []
    left_out = {"not_failed": 0, "too_short": 0}
    for episode in episodes:
        steps = [Step(**step) for step in episode["steps"]]
        ended = bool(steps) and (steps[-1].done or steps[-1].disaster)
        most = len(steps) - 1 if ended else len(steps)
        if episode["reward"] > 0:
            left_out["not_failed"] += 1
        elif most < 1:
            left_out["too_short"] += 1
        else:
            task = episode["task"]
            cut = random.Random(f"{seed}:{task['id']}").randint(1, most)
            starts.append(Start(task["index"], tuple(steps[:cut]), task["id"]))
    return sorted(starts, key=lambda start: start.index), left_out


def save_panel(path: str | Path, task: str, starts: Sequence[Start], source: Mapping[str, Any]) -> None:
    """Write prefixes for other models to start from. `source`: whose failures, which seed."""
    rows = [{"index": s.index, "task_id": s.task_id, "steps": [asdict(x) for x in s.prefix]} for s in starts]
    write_json(path, {"version": PANEL_VERSION, "task": task, "source": dict(source), "prefixes": rows})


def load_panel(path: str | Path, task: str) -> list[Start]:
    """The prefixes of a panel file.

    Raises:
        InputError: when it is no panel, or one of another task.
    """
    data = read_json(path)
    try:
        if data["task"] != task:
            raise InputError(f"--panel {path}: it is for TASK={data['task']}, not {task}")
        return [
            Start(int(row["index"]), tuple(Step(**step) for step in row["steps"]), str(row["task_id"]))
            for row in data["prefixes"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--panel {path}: not a panel file ({error!r})") from error


def panel_hash(rows: Iterable[tuple[str, str]]) -> str:
    """sha256 of the sorted (task id, prefix digest) pairs: equal exactly where the tasks and prefixes are."""
    return _sha256(sorted(f"{task_id} {digest}".strip() for task_id, digest in rows))


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()

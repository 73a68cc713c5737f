"""Choose the task indices of a stage: a split, a list, a range, ScienceWorld's task numbers; without test ids to train.

An index belongs to a kind of server (a bundled one with its own split, or AgentGym's). The goals of the indices are not
compared here; contamination.py does that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mcts_utils.envs.errors import ConnectionLost, EnvStatus
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs.sciworld import variations
from mcts_utils.storage.files import read_json
from mcts_utils.types import EnvError, InputError

PUBLIC_SPLITS = Path(__file__).with_name("splits.json")  # the indices that AgentGym and the paper use
TIMEOUT = 20.0  # seconds for GET /split
VARIATIONS = 5  # default of --task_iteration, as in the paper's data
DEFAULT_MAX = 500  # of --max
MAX_INDEX = 10**9
MAX_IDS = 1_000_000  # of a run
INDEX = re.compile(r"[0-9]{1,9}")
ITEM = re.compile(r"([A-Za-z][A-Za-z_]*?)_(\d.*)")  # AgentGym's item_id: environment, its index


def choose_ids(task: str, base_url: str, wanted: str) -> list[int]:
    """Return the indices of a split ("test", "train"), of a list such as "0-9,31", or of a file with such a list.

    Raises:
        InputError: the server does not answer, the split is unknown, or the list cannot be read.
    """
    if wanted not in ("test", "train"):
        return parse_ids(_listed(wanted, task))
    found = split_ids(task, base_url, wanted)
    if not found:
        raise InputError(
            f"--task_ids {wanted}: no such ids are known for TASK={task}; give a list such as 0-9,31"
        )
    return found


def split_ids(task: str, base_url: str, split: str) -> list[int]:
    """Return the indices of "test" or "train"; empty where they are unknown.

    A server that has GET /split (the bundled ones) names its own split; for all others AgentGym's public one holds.

    Raises:
        InputError: the server does not answer, or not with indices.
    """
    found = _server_split(base_url)
    return public_ids(task, split) if found is None else found.get(split, [])


def public_ids(task: str, split: str) -> list[int]:
    """Return the indices of "test" or "train" on AgentGym's servers; empty where they are unknown."""
    ids = read_json(PUBLIC_SPLITS).get(task, {}).get(split, "")
    return parse_ids(ids) if ids else []


def training_range(low: int | None, high: int | None, test: set[int]) -> list[int]:
    """Return low..high-1 without the test ids; the defaults are 0 and DEFAULT_MAX.

    Raises:
        InputError: an empty range, or one with test ids only.
    """
    low, high = low or 0, DEFAULT_MAX if high is None else high
    if not 0 <= low < high <= low + MAX_IDS:
        raise InputError(f"--min {low} --max {high}: must be 0 <= min < max, and {MAX_IDS} indices at most")
    return _without(range(low, high), test, f"--min {low} --max {high}")


def training_variations(task: str, number: int | None, count: int | None, test: set[int]) -> list[int]:
    """Return the first `count` (default VARIATIONS) variations of ScienceWorld's task `number`, without the test ids.

    Raises:
        InputError: another environment, no such task, or test ids only.
    """
    if task != "sciworld":
        raise InputError(f"--task_num and --task_iteration are for TASK=sciworld, not {task}")
    if number is None:
        raise InputError("--task_iteration goes with --task_num")
    return _without(variations(number, VARIATIONS if count is None else count), test, f"--task_num {number}")


def training_list(task: str, base_url: str, wanted: str, test: set[int]) -> list[int]:
    """Return the indices of choose_ids; raise InputError if a test id is among them.

    Raises:
        InputError: as choose_ids, and for a test id.
    """
    indices = choose_ids(task, base_url, wanted)
    if held := sorted(test.intersection(indices)):
        raise InputError(
            f"--task_ids: {held[0]} is a test id ({len(held)} of {len(indices)} are); --allow_test overrides"
        )
    return indices


def parse_ids(text: str) -> list[int]:
    """Return the indices of a list such as "0-2,7", each once, in the order given.

    Raises:
        InputError: naming the part that is not an index or a range.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        wanted = range(int(first), int(last) + 1) if INDEX.fullmatch(first) and INDEX.fullmatch(last) else ()
        if not wanted:
            raise InputError(
                f"--task_ids must be test, train, a file or a list such as 0-9,31: {part[:60]!r} in {text[:60]!r}"
            )
        if len(found) + len(wanted) > MAX_IDS:
            raise InputError(f"--task_ids: {part!r} makes it more than {MAX_IDS} indices")
        found.update(dict.fromkeys(wanted))
    return list(found)


def _without(indices: range | list[int], test: set[int], flags: str) -> list[int]:
    left = [index for index in indices if index not in test]
    if not left:
        raise InputError(f"{flags}: all are test ids; --allow_test overrides")
    return left


def _listed(wanted: str, task: str) -> str:
    """Return the text, or the indices in the file of this name as such a text.

    The file has indices between commas, blanks or lines, or it is a JSON list as AgentGym's, of
    {"item_id": "textcraft_12"}.
    """
    try:
        if not Path(wanted).is_file():
            return wanted
    except OSError:  # the list is longer than a file name may be
        return wanted
    try:
        text = Path(wanted).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--task_ids {wanted}: not UTF-8 text (byte {error.start})") from error
    if re.match(r'\s*\[\s*["{]', text):
        rows = read_json(wanted)
        return ",".join(
            _item_index(row, f"--task_ids {wanted} row {n}", task) for n, row in enumerate(rows, 1)
        )
    return ",".join(text.strip(" \n[]").replace(",", " ").split())


def _item_index(row: Any, where: str, task: str) -> str:
    """Return the index of a row of AgentGym's lists; raise InputError if it is another environment's or none."""
    item = row.get("item_id") if isinstance(row, dict) else row
    named = ITEM.fullmatch(str(item))
    if named is None or named[1] != task or not INDEX.fullmatch(named[2]):
        raise InputError(f"{where}: item_id is not TASK_INDEX, such as {task}_12: {str(item)[:60]!r}")
    return named[2]


def _server_split(base_url: str) -> dict[str, list[int]] | None:
    """Return the server's own split, or None where it has none (public AgentGym servers answer 404)."""
    http = HttpSession(base_url, TIMEOUT)
    try:
        body = http.get("/split")
        return {str(name): [int(index) for index in ids] for name, ids in body.items()}
    except ConnectionLost as error:
        raise InputError(f"env_server_base {http.base_url}: no server answers ({error})") from error
    except EnvError as error:
        if isinstance(error, EnvStatus) and error.status == 404:
            return None
        raise InputError(f"env_server_base {http.base_url}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"env_server_base {http.base_url}: GET /split names no indices ({error})") from error
    finally:
        http.close()

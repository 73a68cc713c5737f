"""Which task indices a stage runs: a split, a list, a range, ScienceWorld's task numbers; test ids apart.

Indices belong to a kind of server (a bundled one with its own split, or AgentGym's); what they show is held_out.py's
business.
"""

from __future__ import annotations

from pathlib import Path

from mcts_utils.envs.http import ConnectionLost, EnvStatus, HttpSession
from mcts_utils.envs.specs.sciworld import variations
from mcts_utils.storage.files import read_json
from mcts_utils.types import EnvError, InputError

PUBLIC_SPLITS = Path(__file__).with_name("splits.json")  # the ids that AgentGym and the paper use
TIMEOUT = 20.0  # seconds for GET /split
VARIATIONS = 5  # of each ScienceWorld task, as in the paper's data
MOST = 500  # --min without --max


def choose_ids(task: str, base_url: str, wanted: str) -> list[int]:
    """Indices of a split ("test", "train"), of a list such as "0-9,31", or of a file with such a list.

    Raises:
        InputError: when the server does not answer, the split is unknown or the list cannot be read.
    """
    if wanted not in ("test", "train"):
        return parse_ids(_listed(wanted))
    found = split_ids(task, base_url, wanted)
    if not found:
        raise InputError(
            f"--task_ids {wanted}: no such ids are known for TASK={task}; give a list such as 0-9,31"
        )
    return found


def split_ids(task: str, base_url: str, split: str) -> list[int]:
    """Indices of "test" or "train"; empty where nobody knows them.

    A server that has GET /split (the bundled ones) names its own split; for all others AgentGym's public ids hold.

    Raises:
        InputError: when the server does not answer or names no indices.
    """
    found = _server_split(base_url)
    if found is None:
        found = {name: parse_ids(ids) for name, ids in read_json(PUBLIC_SPLITS).get(task, {}).items()}
    return found.get(split, [])


def training_range(low: int | None, high: int | None, test: set[int]) -> list[int]:
    """low..high-1 (from 0, up to MOST) without the test ids.

    Raises:
        InputError: an empty range, or nothing but test ids in it.
    """
    low, high = low or 0, MOST if high is None else high
    if not 0 <= low < high:
        raise InputError(f"--min {low} --max {high}: must be 0 <= min < max")
    return _without(range(low, high), test, f"--min {low} --max {high}")


def training_variations(task: str, number: int | None, count: int | None, test: set[int]) -> list[int]:
    """The first `count` variations of ScienceWorld's task `number`, without the test ids.

    Raises:
        InputError: another environment, no such task, or nothing but test ids.
    """
    if task != "sciworld":
        raise InputError(f"--task_num and --task_iteration are for TASK=sciworld, not {task}")
    if number is None:
        raise InputError("--task_iteration goes with --task_num")
    return _without(variations(number, VARIATIONS if count is None else count), test, f"--task_num {number}")


def training_list(task: str, base_url: str, wanted: str, test: set[int]) -> list[int]:
    """As choose_ids.

    Raises:
        InputError: also if a test id was asked for by name.
    """
    asked = choose_ids(task, base_url, wanted)
    if named := sorted(test.intersection(asked)):
        raise InputError(f"--task_ids: {named[0]} is a test id ({len(named)} in all); --allow_test overrides")
    return asked


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
                f"--task_ids must be test, train, a file or a list such as 0-9,31: {part!r} in {text[:60]!r}"
            )
        found.update(dict.fromkeys(range(int(first), int(last if dash else first) + 1)))
    return list(found)


def _without(indices: range | list[int], test: set[int], flags: str) -> list[int]:
    left = [index for index in indices if index not in test]
    if not left:
        raise InputError(f"{flags}: all are test ids; --allow_test overrides")
    return left


def _listed(wanted: str) -> str:
    """The ids as given, or those that a file of that name holds, between commas, blanks or lines."""
    try:
        if not Path(wanted).is_file():
            return wanted
    except OSError:  # a list longer than a file name may be
        return wanted
    return ",".join(Path(wanted).read_text(encoding="utf-8").strip(" \n[]").replace(",", " ").split())


def _server_split(base_url: str) -> dict[str, list[int]] | None:
    """The server's own split, or None where it has none (public AgentGym servers answer 404)."""
    http = HttpSession(base_url, TIMEOUT)
    try:
        body = http.get("/split")
        return {str(name): [int(index) for index in ids] for name, ids in body.items()}
    except ConnectionLost as error:
        raise InputError(f"env_server_base {base_url}: no server answers ({error})") from error
    except EnvError as error:
        if isinstance(error, EnvStatus) and error.status == 404:
            return None
        raise InputError(f"env_server_base {base_url}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"env_server_base {base_url}: GET /split names no indices ({error})") from error
    finally:
        http.close()

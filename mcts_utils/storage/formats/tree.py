"""The file of a tree (stage 1), version 2, and the reader of version 1. Pure.

search/tree_io.py makes a Tree of it; trees of the public reference are read by search/reference_format.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from mcts_utils.storage.formats.base import (
    ANSWERS,
    CUT,
    Fields,
    Prompt,
    Score,
    TaskFields,
    about,
    field_of,
    parsed,
)
from mcts_utils.storage.formats.verdicts import KeptVerdict
from mcts_utils.types import InputError

FORMAT = "agent-r-tree"
VERSION = 2  # version 1 had an object for every node
STATUSES = ("partial", "done", "failed")
FLAGS = ("is_terminal", "done", "disaster", "executed")  # fields of a node that are 0 or 1
LIVE_COUNTS = ("plain", "judged", "judge_requests", "signals")  # of live revision alone
OPTIONAL: dict[str, Any] = {"answers": (), "cut": ""}  # lists that a file has where not all values are these
Flag = Literal[0, 1]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Sum = Annotated[float, Meta(ge=0, le=1e9)]


class Stats(Fields, frozen=True, kw_only=True):
    """Counts of one tree."""

    iterations: Annotated[int, about("finished iterations")] = 0
    selections: Annotated[int, about("choices among two or more children")] = 0
    selections_uct: Annotated[
        int, about("those of them where every child had visits, so that UCT decided")
    ] = 0
    rollouts: Annotated[int, about("rollouts")] = 0
    env_steps: Annotated[int, about("steps of the environment")] = 0
    env_resets: Annotated[int, about("resets of the environment")] = 0
    calls: Annotated[int, about("requests to the actor")] = 0
    completions: Annotated[int | UnsetType, about("answers: a request for n candidates is n")] = UNSET
    prompt_tokens: Annotated[int, about("tokens of the requests, as the actor reports them")] = 0
    completion_tokens: Annotated[int, about("tokens of the answers")] = 0
    invalid: Annotated[int, about("turns without an action")] = 0
    truncated: Annotated[int | UnsetType, about("turns that `MAX_TOKEN_LENGTH` cut")] = UNSET
    empty: Annotated[int | UnsetType, about("empty turns, which are also `invalid`")] = UNSET
    played_on: Annotated[
        int | UnsetType, about("turns that went on after their action; the rest was cut off")
    ] = UNSET
    nodes: Annotated[int, about("nodes")] = 0
    plain: Annotated[int | UnsetType, about("live: plain episodes, which come first")] = UNSET
    judged: Annotated[int | UnsetType, about("live: steps that were judged")] = UNSET
    judge_requests: Annotated[int | UnsetType, about("live: requests to the judge")] = UNSET
    signals: Annotated[int | UnsetType, about("live: revision signals that were put in")] = UNSET


class NodeColumns(Fields, frozen=True, kw_only=True):
    """One list for every field of a node, all of one length. Parents stand before their children, the root first."""

    parent: Annotated[list[int | None], about("id of the parent; null at the root")]
    id: Annotated[list[int], about("number of the node, unique in the tree")]
    depth: Annotated[list[Count], about("steps from the root")]
    reply: Annotated[list[str], about("the whole turn")] = field(name="llm_response")
    action: Annotated[list[str], about("what was sent to the environment")]
    obs: Annotated[
        list[str],
        about(
            "the environment's answer. Empty before execution, and at the root, whose text is the `opening`"
        ),
    ]
    reward: Annotated[list[Score], about("score of the episode so far")] = field(name="env_score")
    samples: Annotated[list[Count], about("times that this turn was drawn from the parent")]
    visits: Annotated[list[Count], about("rewards backed up through the node")]
    value: Annotated[list[Sum], about("their sum; the mean is `value / visits`")]
    is_terminal: Annotated[list[Flag], about("a leaf: done, disaster, `MAX_DEPTH` or a full context")]
    done: Annotated[list[Flag], about("the environment said so")]
    disaster: Annotated[list[Flag], about("the score went negative; the reward is 0")]
    executed: Annotated[list[Flag], about("0: a candidate that was only drawn")]
    answers: Annotated[
        list[list[str]] | UnsetType,
        about(f"{ANSWERS} (here: an empty list for other nodes, or no list at all)"),
    ] = UNSET
    cut: Annotated[list[str] | UnsetType, about(f"{CUT} (here: empty, or no list at all)")] = UNSET


class TreeFile(Fields, frozen=True, kw_only=True):
    """A tree, written whole after every iteration."""

    format: Annotated[Literal["agent-r-tree"], about("`agent-r-tree`")] = "agent-r-tree"
    version: Annotated[Literal[2], about("2")] = 2
    status: Annotated[Literal["partial", "done", "failed"], about("`partial`, `done` or `failed`")]
    error: Annotated[str, about("why it failed; empty otherwise")]
    task: Annotated[TaskFields, about("see below")]
    prompt: Annotated[Prompt, about("`full` or `brief`")]
    seed: Annotated[int, about("`SEED`")]
    settings: Annotated[dict[str, Any], about("what the tree was made with, see below")]
    stats: Annotated[Stats, about("counts, see below")]
    nodes: Annotated[NodeColumns, about("one list for every field of a node, all of one length")]
    openings: Annotated[
        dict[str, str] | UnsetType,
        about("live: first node of an episode → its opening, where that is not the task's"),
    ] = UNSET
    verdicts: Annotated[
        dict[str, KeptVerdict] | UnsetType, about("live: node → what the judge said of it, see verdicts")
    ] = UNSET


NODE_NAMES = dict(zip(NodeColumns.__struct_fields__, NodeColumns.__struct_encode_fields__, strict=True))


def is_tree(data: Any) -> bool:
    """Return True if parsed JSON says that it is a tree of this program."""
    return field_of(data, "format") == FORMAT


def parse_tree(data: Any) -> TreeFile:
    """Return the tree of parsed JSON, in version 1 or 2; raise InputError naming the field that is wrong."""
    version, status = field_of(data, "version"), field_of(data, "status")
    if not is_tree(data) or version not in (1, VERSION):
        found = f"{field_of(data, 'format')!r} {version!r}"
        raise InputError(f"not a version {VERSION} {FORMAT}: {found}")
    if status not in STATUSES:
        raise InputError(f"status must be one of {', '.join(STATUSES)}: {status!r}")
    try:
        nodes = _as_columns(data["nodes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a node is missing or wrong: {error!r}") from error
    tree = parsed({**data, "version": VERSION, "nodes": nodes}, TreeFile)
    lists = [values for name in NODE_NAMES if (values := getattr(tree.nodes, name)) is not UNSET]
    if len(set(map(len, lists))) > 1 or not tree.nodes.id:
        raise InputError("a field is missing or wrong: the lists of `nodes` are empty or differ in length")
    return tree


def _as_columns(nodes: Any) -> Any:
    """Return the nodes as columns; version 1 has an object for every node, with flags that are true or false."""
    if not isinstance(nodes, list):
        return nodes
    names = set(NODE_NAMES.values()) - set(OPTIONAL)
    columns: dict[str, list[Any]] = {name: [row[name] for row in nodes] for name in names}
    return columns | {name: [int(value) for value in columns[name]] for name in FLAGS}

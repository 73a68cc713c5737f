"""What stage 2 can be asked for: the data types, and the options of one run."""

from __future__ import annotations

from dataclasses import dataclass

from mcts_utils.revision.pairs import PairRule

KINDS = {  # data type -> kind of its rows
    "centric": "revision",
    "direct": "direct",
    "good": "good",
    "optimal": "optimal",
    "preference": "preference",
}
REJUDGE = "rejudge"  # names the manifest of `--rejudge`
EXPERT = "expert"  # a data type that is made without trees (expert.py)


@dataclass(frozen=True)
class Options:
    """What stage 2 was asked for; recorded in the manifest."""

    data_type: str  # a key of KINDS
    rule: PairRule
    max_per_task: int = 8
    clean: bool = True
    verified: bool = True  # False: splices are put together as recorded, and nothing executes them
    unique: bool = True  # False: rows with the same actions are written again
    clean_replays: int = 40  # shorter paths tried per good path and per tail
    max_replays: int = 2000  # per tree
    mask_refused: bool = True
    judge_prefix: bool = False
    drop_unjudged: bool = True
    repair: bool = False
    max_depth: int = 20  # new steps of a repair
    temperature: float = 1.0  # of a repair
    reference_fields: bool = False

    @property
    def executes_good(self) -> bool:
        """Return True if good paths are executed: to be pruned, or to be verified as they are."""
        return self.clean or self.verified

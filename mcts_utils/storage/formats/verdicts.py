"""The judge's verdicts on the nodes of one tree (stage 2) or on the steps of one episode (`eval.py loops`). Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from mcts_utils.storage.formats.base import Fields, Label, Prompt, Sha256, about
from mcts_utils.types import Verdict


class Vote(Fields, frozen=True, kw_only=True):
    """One of several verdicts on a step."""

    label: Annotated[Label, about("`good`, `bad` or `uncertain`")]
    reason: Annotated[str, about("what the judge gave")]
    asked: Annotated[int, about("requests until an answer parsed")]
    parsed: Annotated[bool, about("false: no answer parsed")]


class KeptVerdict(Fields, frozen=True, kw_only=True):
    """A verdict, and the question that it answers (types.Verdict)."""

    question: Annotated[str, about("first 16 hex digits of the question's hash")]
    label: Annotated[Label, about("`good`, `bad` or `uncertain`")]
    reason: Annotated[str, about("what the judge gave")]
    asked: Annotated[int, about("requests until an answer parsed")]
    parsed: Annotated[bool, about("false: no answer parsed, so the label is `uncertain` by rule")]

    votes: Annotated[
        list[Vote] | UnsetType,
        about(
            "`{label, reason, asked, parsed}` of each, with [several verdicts](revision.md#several-verdicts)"
        ),
    ] = UNSET

    @classmethod
    def of(cls, question: str, verdict: Verdict) -> KeptVerdict:
        """Return a verdict as it is kept."""
        return cls(
            question=question,
            label=verdict.label,
            reason=verdict.reason,
            asked=verdict.asked,
            parsed=verdict.parsed,
            votes=[msgspec.convert(vote, Vote, from_attributes=True) for vote in verdict.votes] or UNSET,
        )

    def verdict(self) -> Verdict:
        """Return the verdict."""
        votes = tuple(Verdict(v.label, v.reason, v.asked, v.parsed) for v in self.votes or ())
        return Verdict(self.label, self.reason, self.asked, self.parsed, votes)


class VerdictFile(Fields, frozen=True, kw_only=True):
    """All verdicts on one tree or episode."""

    model: Annotated[
        str,
        about(
            "whose verdicts they are: the model's name and, for a local model, the start of its weights' hash"
        ),
    ]
    prompt: Annotated[Prompt, about("`full` or `brief`")]
    prompt_sha256: Annotated[Sha256, about("hash of the judge's system text")]
    max_token_length: Annotated[
        int | UnsetType, about("`MAX_TOKEN_LENGTH` of the answers; left out for the default, 256")
    ] = UNSET
    verdicts: Annotated[
        dict[str, KeptVerdict], about("node id (in `loops`: number of the step, from 1) → verdict")
    ]

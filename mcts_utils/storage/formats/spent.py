"""What was paid for in one output folder of a stage, over all its runs. Pure."""

from __future__ import annotations

from typing import Annotated

from mcts_utils.storage.formats.base import Fields, about


class Paid(Fields, frozen=True, kw_only=True):
    """What one model was asked."""

    calls: Annotated[int, about("answered requests")] = 0
    prompt_tokens: Annotated[int, about("as the server counts them")] = 0
    cached_tokens: Annotated[int, about("of these, those that the server had in its cache")] = 0
    completion_tokens: Annotated[int, about("as the server counts them")] = 0
    dollars: Annotated[float, about("at the prices of the day they were paid")] = 0.0


class Most(Fields, frozen=True, kw_only=True):
    """What requests without an answer may cost at most."""

    tokens: Annotated[int, about("prompt and completion tokens")] = 0
    dollars: Annotated[float, about("their price")] = 0.0


class Spent(Fields, frozen=True, kw_only=True):
    """What was paid for in a folder."""

    version: Annotated[int, about("1")] = 1
    models: Annotated[dict[str, Paid], about("`actor` and `judge` → what each was asked")] = {}
    in_flight: Annotated[Most, about("requests that are not answered yet")] = Most()
    lost: Annotated[
        Most, about("requests that were in flight when a run was killed: they may be on the bill")
    ] = Most()
    seconds: Annotated[float, about("of all runs")] = 0.0

    @property
    def tokens(self) -> int:
        """Return the tokens that are, or may be, on the bill."""
        return self.lost.tokens + sum(m.prompt_tokens + m.completion_tokens for m in self.models.values())

    @property
    def dollars(self) -> float:
        """Return the dollars that are, or may be, on the bill."""
        return self.lost.dollars + sum(model.dollars for model in self.models.values())

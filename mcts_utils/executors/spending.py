"""Send a stage's requests within its limits (ledger.py), and count what this process asks, for the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from msgspec.structs import replace

from mcts_utils import patience
from mcts_utils.actors.wrapped import WrappedActor
from mcts_utils.config import Settings
from mcts_utils.executors.ledger import WAIT, Ledger, LedgerPlan, money
from mcts_utils.storage.formats.spent import Paid
from mcts_utils.terminal import Progress
from mcts_utils.types import Actor, BudgetReached, MakeActor, Message, Sample

PAUSE = 0.05  # seconds between two looks for room
MESSAGE_TOKENS = 16  # that a chat template adds to a message, at most
FIRST_RATIO = 0.5  # tokens of a prompt's byte before the first answer
MARGIN = 1.5  # how much denser than all prompts before the next one may be


class SharedLedger(Protocol):
    """A ledger.Ledger, of this process or of another one."""

    def admit(self, process: str, model: str, most: Paid) -> str:
        """Count a request that is about to be sent."""

    def settle(self, process: str, model: str, most: Paid, paid: Paid, seconds: float) -> None:
        """Count its answer, or that there is none."""

    def paid(self) -> dict[str, Any]:
        """Return what each model was asked."""


class Spending:
    """What one process asks its models. Safe for threads."""

    def __init__(self, max_tokens: int, ledger: SharedLedger | None = None, process: str = "driver") -> None:
        """Count nothing yet.

        Args:
            max_tokens: of a completion.
            ledger: None where nothing is limited or priced.
            process: the name of this process there.
        """
        self.max_tokens, self.ledger, self.process = max_tokens, ledger, process
        self._lock, self._began = Lock(), time.monotonic()
        self._ratio = 0.0  # tokens of a prompt's byte, the most so far
        self._each = self._said = False  # a request for n samples is n requests; that no usage is reported
        self.in_flight = self.written = 0
        self.paid: dict[str, Any] = {}  # {"paid": what each model was asked}, for the manifest, at the end

    def metered(self, make_actor: MakeActor | None) -> MakeActor | None:
        """Return a function that makes the actor with its requests counted."""
        return (lambda: MeteredActor(make_actor(), self, "actor")) if make_actor else None

    def figures(self) -> dict[str, str]:
        """Return tokens per second and requests in flight of this process, and the dollars of the folder."""
        found: dict[str, str] = {}
        if self.in_flight + self.written:
            rate = self.written / max(time.monotonic() - self._began, 1e-9)
            found = {"tokens/s": f"{rate:.0f}", "in flight": str(self.in_flight)}
        paid = self.ledger.paid() if self.ledger else {}
        dollars = {f"${name}": f"{model['dollars']:.2f}" for name, model in paid.items() if model["dollars"]}
        return found | ({"$": dollars["$actor"]} if [*dollars] == ["$actor"] else dollars)

    def most(self, messages: Sequence[Message], n: int) -> Paid:
        """Return the most that a request may cost.

        The number of a prompt's tokens is not known before it is answered. The prompts so far tell it by their bytes.
        """
        ratio = min(1.0, self._ratio * MARGIN or FIRST_RATIO)
        prompt = int(_size(messages) * ratio) + MESSAGE_TOKENS * (len(messages) + 1)
        prompts = n if self._each else 1
        return Paid(prompt_tokens=prompts * prompt, completion_tokens=n * self.max_tokens)

    def begin(self, model: str, most: Paid) -> None:
        """Wait until a request may be sent; raise BudgetReached if it may not."""
        while self.ledger and (answer := self.ledger.admit(self.process, model, most)):
            if answer != WAIT:
                raise BudgetReached(answer)
            patience.pause(PAUSE)
        with self._lock:
            self.in_flight += 1

    def end(
        self, model: str, most: Paid, messages: Sequence[Message], samples: Sequence[Sample], seconds: float
    ) -> None:
        """Count the answer to a request; no samples: there was none."""
        paid = Paid(
            calls=int(bool(samples)),
            prompt_tokens=sum(sample.prompt_tokens for sample in samples),
            cached_tokens=sum(sample.cached_tokens for sample in samples),
            completion_tokens=sum(sample.completion_tokens for sample in samples),
        )
        prompts = sum(sample.prompt_tokens > 0 for sample in samples)
        with self._lock:
            self.in_flight -= 1
            self.written += paid.completion_tokens
            self._each = self._each or prompts > 1
            if prompts:
                self._ratio = max(self._ratio, paid.prompt_tokens / prompts / max(1, _size(messages)))
        if self.ledger and samples:
            paid = self._reported(model, most, paid, samples)
        if self.ledger:
            self.ledger.settle(self.process, model, most, paid, seconds)

    def _reported(self, model: str, most: Paid, paid: Paid, samples: Sequence[Sample]) -> Paid:
        """Return what was paid; the most that it can be where the server does not report it, which is said once."""
        if paid.prompt_tokens and (paid.completion_tokens or not any(s.text + s.reasoning for s in samples)):
            return paid
        if not self._said:
            self._said = True
            line = f"note: the {model}'s endpoint does not report all tokens; they are counted from the texts' bytes"
            Progress.write(line, file=sys.stderr)
        written = min(
            most.completion_tokens,
            sum(len((s.text + s.reasoning).encode("utf-8", "replace")) for s in samples),
        )
        return replace(
            paid,
            prompt_tokens=paid.prompt_tokens or most.prompt_tokens,
            completion_tokens=paid.completion_tokens or written,
        )


class MeteredActor(WrappedActor):
    """An actor whose requests are counted, and are not sent where they could pass a limit."""

    def __init__(self, actor: Actor, spending: Spending, model: str) -> None:
        """`model`: `actor` or `judge`, under which it is counted."""
        self._actor, self._spending, self._model = actor, spending, model

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Sample from the actor.

        Raises:
            BudgetReached: the request could pass a limit.
        """
        most = self._spending.most(messages, n)
        self._spending.begin(self._model, most)
        samples: list[Sample] = []
        began = time.monotonic()
        try:
            samples = self._actor.sample(messages, n, temperature, seed)
        finally:
            self._spending.end(self._model, most, messages, samples, time.monotonic() - began)
        return samples


@contextmanager
def limited(settings: Settings, manifest: Path, judge: Actor) -> Iterator[Actor]:
    """Yield the judge of a command that is no stage: the limits hold for what it asks, counted beside the manifest.

    Raises:
        InputError: the model has no price.
        BudgetReached: a limit is reached.
    """
    plan = LedgerPlan.of(settings, manifest, {"judge": settings})
    ledger = Ledger(plan) if plan else None
    try:
        yield MeteredActor(judge, Spending(settings.reply_tokens, ledger), "judge")
    except BudgetReached as error:
        line = "what it was answered is kept; the same command with a larger one goes on"
        raise BudgetReached(f"{error}: {line}") from error
    finally:
        if ledger:
            ledger.close()
            if paid := ledger.paid():
                print(f"paid so far: {paid_text(paid)}", file=sys.stderr)


def paid_text(paid: dict[str, Any]) -> str:
    """Return what was paid in one line, such as `actor: 3 calls, 1,200 prompt and 90 completion tokens, $0.01`."""
    parts = []
    for name, model in paid.items():
        tokens = f"{model['prompt_tokens']:,} prompt and {model['completion_tokens']:,} completion tokens"
        dollars = f", ${money(model['dollars'])}" if model.get("dollars") else ""
        parts.append(f"{name}: {model['calls']:,} calls, {tokens}{dollars}")
    return "; ".join(parts)


def _size(messages: Sequence[Message]) -> int:
    """Return the bytes of a prompt."""
    calls = (text for m in messages for call in m.tool_calls for text in (call.name, call.arguments))
    texts = [*(text for m in messages for text in (m.content, m.tools)), *calls]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)

"""Count what a stage pays for in its output folder, and keep it below MAX_TOKENS_TOTAL, MAX_COST and MAX_HOURS.

The count goes on over all runs: it is in a file, which is brought up to date before and after each request, so that a
killed process leaves no request uncounted. It asks no model (spending.py does).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from msgspec.structs import replace

from mcts_utils import patience
from mcts_utils.config import Settings
from mcts_utils.executors.prices import Price, Prices
from mcts_utils.storage.files import read_as
from mcts_utils.storage.formats.base import field_of, plain
from mcts_utils.storage.formats.spent import Most, Paid, Spent
from mcts_utils.storage.layout import spent_path
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import InputError

WAIT = "wait"  # the answer of `admit` while other requests are in flight whose answers may leave room
SHORTEST = 512  # bytes of the file, filled up with blanks, so that it is replaced in one write


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent in all; 0: any."""

    tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits of the settings."""
        return cls(settings.max_tokens_total, settings.max_cost, 3600 * settings.max_hours)


@dataclass(frozen=True, slots=True)
class LedgerPlan:
    """What a ledger is made of; picklable."""

    manifest: Path  # of the stage
    limits: Limits
    prices: Mapping[str, Price]  # of `actor` and `judge`, where they have one

    @classmethod
    def of(cls, settings: Settings, manifest: Path, models: Mapping[str, Settings]) -> LedgerPlan | None:
        """Return the plan for a stage's models; None if nothing is asked, or nothing is limited or priced.

        Raises:
            InputError: the price of one of them is not known.
        """
        limits, prices = Limits.of(settings), Prices.of(settings)
        if not models or limits == Limits() and prices is None:
            return None
        known = {name: prices.price(model) for name, model in models.items()} if prices else {}
        return cls(manifest.absolute(), limits, known)


class Ledger:
    """What is paid for in one folder. Safe for threads; with EXECUTOR=ray one process of the cluster holds it."""

    def __init__(self, plan: LedgerPlan) -> None:
        """Read what earlier runs have paid for: from the file, or the manifest beside it of a run that kept none.

        Raises:
            InputError: the file is damaged.
        """
        self._limits, self._prices, self._lock = plan.limits, plan.prices, Lock()
        self._file = file = spent_path(plan.manifest)
        self._began, self._longest = patience.now(), 0.0
        found = read_as(file, Spent) if file.exists() else Spent()
        self._models = dict(found.models)
        for model, paid in ({} if file.exists() else of_manifest(plan.manifest)).items():
            self._models[model] = self._priced(model, paid)
        self._before, self._lost = found.seconds, _sum(found.lost, found.in_flight)
        self._open: dict[str, Most] = {}  # by process: what its requests in flight may cost
        self._descriptor = -1
        self._reached = ""

    def admit(self, process: str, model: str, most: Paid) -> str:
        """Count a request that is about to be sent, and return "" if it may be; `model` is `actor` or `judge`.

        Returns:
            WAIT, or the name and the value of a limit that it could pass, with what is spent.
        """
        with self._lock:
            spent, limits = self._spent(), self._limits
            most, open_ = self._priced(model, most), spent.in_flight
            tokens = most.prompt_tokens + most.completion_tokens
            for text, limit, now, more, in_flight in (
                (_tokens_text, limits.tokens, spent.tokens, tokens, open_.tokens),
                (_dollars_text, limits.dollars, spent.dollars, most.dollars, open_.dollars),
                (_hours_text, limits.seconds, spent.seconds, self._longest, 0),
            ):
                if limit and not self._reached and now + more + in_flight > limit:
                    if in_flight:
                        return WAIT
                    self._reached = text(limit, spent)
            if not self._reached:
                self._change(process, most, 1)
            return self._reached

    def settle(self, process: str, model: str, most: Paid, paid: Paid, seconds: float) -> None:
        """Replace the most that a request could cost by what it did cost; it took so many seconds."""
        with self._lock:
            parts = (plain(self._models.get(model, Paid())), plain(self._priced(model, paid)))
            self._models[model] = Paid(**{name: sum(part[name] for part in parts) for name in parts[0]})
            self._longest = max(self._longest, seconds)
            self._change(process, self._priced(model, most), -1)

    def forget(self, process: str) -> None:
        """Count the requests in flight of a process that has died as paid."""
        with self._lock:
            gone = self._open.pop(process, Most())
            self._lost = _sum(self._lost, gone)
            self._write()

    def paid(self) -> dict[str, Any]:
        """Return what each model was asked, as it stands in manifests."""
        with self._lock:
            return {name: plain(model) for name, model in self._models.items()}

    def close(self) -> None:
        """Note the time, and close the file."""
        with self._lock:
            if self._descriptor >= 0:
                self._write()
                os.close(self._descriptor)
                self._descriptor = -1

    def _spent(self) -> Spent:
        seconds = self._before + patience.now() - self._began
        in_flight = _sum(*self._open.values())
        return Spent(models=self._models, in_flight=in_flight, lost=self._lost, seconds=seconds)

    def _priced(self, model: str, paid: Paid) -> Paid:
        price = self._prices.get(model, Price())
        dollars = price.dollars(paid.prompt_tokens, paid.completion_tokens, paid.cached_tokens)
        return replace(paid, dollars=dollars)

    def _change(self, process: str, most: Paid, sign: int) -> None:
        tokens = most.prompt_tokens + most.completion_tokens
        signed = Most(tokens=sign * tokens, dollars=sign * most.dollars)
        self._open[process] = _sum(self._open.get(process, Most()), signed)
        self._write()

    def _write(self) -> None:
        """Replace the file's content in one write, which a kill of this process leaves whole."""
        if self._descriptor < 0:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o644)
        text = msgspec.json.encode(self._spent())
        os.pwrite(self._descriptor, text.ljust(SHORTEST - 1) + b"\n", 0)


def _sum(*parts: Most) -> Most:
    dollars = round(sum(part.dollars for part in parts), 12)  # without what floats leave of a difference
    return Most(tokens=sum(part.tokens for part in parts), dollars=dollars + 0.0)


def of_manifest(manifest: Path) -> dict[str, Paid]:
    """Return what the manifest of a run without prices and limits says: name of the model -> what it was asked."""
    try:
        tokens = read_manifest(manifest).tokens
    except InputError:
        return {}
    found = {"actor": tokens, "judge": field_of(tokens, "judge")}
    names = ("calls", "prompt_tokens", "completion_tokens")
    return {
        model: Paid(**{name: int(part.get(name, 0)) for name in names})
        for model, part in found.items()
        if isinstance(part, Mapping) and part.get("calls")
    }


def _tokens_text(limit: float, spent: Spent) -> str:
    return f"MAX_TOKENS_TOTAL={limit} reached at {spent.tokens}"


def _dollars_text(limit: float, spent: Spent) -> str:
    return f"MAX_COST={limit:g} reached at ${money(spent.dollars)}"


def _hours_text(limit: float, spent: Spent) -> str:
    return f"MAX_HOURS={limit / 3600:g} reached at {spent.seconds / 3600:.3g}"


def money(dollars: float) -> str:
    """Return dollars as text, such as 12.34; more digits of small sums."""
    return f"{dollars:,.2f}" if dollars >= 1 or not dollars else f"{dollars:.3g}"

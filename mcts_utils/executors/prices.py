"""Read the prices of models from a file (PRICES), and say which price a model has."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.types import InputError

KINDS = ("prompt", "completion", "cached")  # the last one may be missing
MOST = 1e6  # dollars


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars of a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0
    # Of prompt tokens that the server had in its cache; None: as other prompt tokens.
    cached: float | None = None

    def dollars(self, prompt: float, completion: float, cached: float = 0) -> float:
        """Return the price of so many tokens; `cached` is a part of `prompt`."""
        rest = self.prompt if self.cached is None else self.cached
        return ((prompt - cached) * self.prompt + cached * rest + completion * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices that the settings name."""

    of_models: Mapping[str, Price]
    others: Price | None  # TOKEN_PRICE
    source: str  # PRICES

    @classmethod
    def of(cls, settings: Settings) -> Prices | None:
        """Return the prices; None if there are none.

        Raises:
            InputError: naming the file, and the row, that is wrong.
        """
        if not (settings.prices or settings.token_price):
            return None
        others = Price(*map(float, settings.token_price.split())) if settings.token_price else None
        return cls(read_prices(settings.prices) if settings.prices else {}, others, settings.prices)

    def price(self, settings: Settings) -> Price:
        """Return the price of the model that these settings name. A local model that has none costs nothing.

        Raises:
            InputError: naming the model.
        """
        found = self.of_models.get(settings.model_name, self.others)
        if found is None and not settings.local:
            named = ", ".join(self.of_models)
            raise InputError(f"PRICES={self.source} has no model {settings.model_name!r} (it has {named})")
        return found or Price()


def read_prices(path: str) -> dict[str, Price]:
    """Return the prices in a file: model -> its price.

    Raises:
        InputError: naming the file and the model or row that is wrong.
    """
    readers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads, ".csv": str}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"PRICES={path} must end in .json, .toml or .csv")
    try:
        found = reader(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"PRICES={path} is not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"PRICES={path} is not {Path(path).suffix[1:].upper()}: {str(error)[:80]}"
        ) from error
    rows = list(_csv_rows(found, path) if isinstance(found, str) else _rows(found, path))
    prices: dict[str, Price] = {}
    for where, model, row in rows:
        if model in prices:
            raise InputError(f"{where}: the model {model!r} has a price already")
        prices[model] = _price(where, row)
    if not prices:
        raise InputError(f"PRICES={path} names no model")
    return prices


def _rows(found: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(found, dict):
        raise InputError(f"PRICES={path} must be an object: model -> prices")
    for model, row in found.items():
        yield f"PRICES={path} model {model!r}", model, row


def _csv_rows(text: str, path: str) -> Iterator[tuple[str, str, Any]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True, restkey="further")
    if "model" not in (reader.fieldnames or ()):
        raise InputError(f"PRICES={path} row 1 must name its columns: model,prompt,completion,cached")
    for row in reader:
        model = row.pop("model")
        given = {name: text for name, text in row.items() if text}
        yield f"PRICES={path} row {reader.line_num}", model, given


def _price(where: str, row: Any) -> Price:
    if not isinstance(row, dict) or not {*KINDS[:2]} <= set(row) <= {*KINDS}:
        raise InputError(
            f"{where} must have prompt and completion, may have cached, and nothing else: {row!r}"
        )
    numbers = {}
    for name, value in row.items():
        try:
            numbers[name] = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            numbers[name] = float("nan")
        if not 0 <= numbers[name] <= MOST:
            raise InputError(f"{where}: {name} must be between 0 and {MOST:g} dollars: {value!r}")
    return Price(**numbers)

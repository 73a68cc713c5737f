"""Say what is wrong with a setting, in one line with the variable's name and its value. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from mcts_utils.config.checks import without_password

SHOWN = 100  # characters of a wrong value
VARIABLES = {"grounding": "ACTION_GROUNDING"}  # fields that are not named as their variable


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    return VARIABLES.get(field, field.upper())


def fault_line(error: ValidationError, given: Mapping[str, Any], bounds: Callable[[str], str]) -> str:
    """Return the first fault, with the variable's name and its value; `bounds` says what a number must be."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    kinds = {"int_parsing": "must be a whole number", "float_parsing": "must be a number"}
    if first["type"] == "literal_error":
        options = re.findall(r"'(\w+)'", first["ctx"]["expected"])
        wrong = f"must be one of {', '.join(options)}"
    elif first["type"] == "value_error":
        wrong = str(first["ctx"]["error"])
    else:
        wrong = kinds.get(first["type"]) or f"must be {bounds(name) or first['msg']}"
    value = given.get(name, first["input"])
    value = without_password(value)[:SHOWN] if isinstance(value, str) else value
    return f"{variable(name)} {wrong}" + ("" if name.endswith("api_key") else f": {value!r}")

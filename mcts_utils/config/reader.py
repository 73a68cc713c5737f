"""Read the settings from environment variables and the `.env` file. Nothing else reads os.environ."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from mcts_utils.config.checks import without_password
from mcts_utils.config.concurrency import LOCAL_CONCURRENCY, default_workers
from mcts_utils.config.faults import fault_line, variable
from mcts_utils.config.settings import Settings, bounds
from mcts_utils.servers.yours.source import SourceError, is_source, name_of
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import InputError

PROMPT_KEY = "agent_r_prompt"  # in MODEL_DIR/config.json: the prompt that the model was trained with


def settings_from_env(environ: Mapping[str, str] | None = None, tasks: Collection[str] = ()) -> Settings:
    """Return the settings of `environ`; by default of os.environ over the `.env` file of the working folder.

    An empty value counts as not set. TASK must be one of `tasks`, if there are any, whatever else is wrong; or it is
    the source of an environment of yours, whose name becomes the task.

    Raises:
        InputError: naming the variable and its value.
    """
    if environ is None:
        environ = {**env_file(), **os.environ}
    names = [field.name for field in fields(Settings)]
    given: dict[str, Any] = {
        name: text for name in names if (text := environ.get(variable(name), "").strip())
    }
    task = given.get("task", Settings.task)
    given.pop("task_source", None)
    if is_source(task):
        try:
            given |= {"task": name_of(task), "task_source": task}
        except SourceError as error:
            raise InputError(f"TASK {error}") from None
    elif tasks and task not in tasks:
        raise InputError(f"TASK must be one of {', '.join(tasks)}: {given['task']!r}")
    try:
        return _with_dependent_defaults(Settings(**given), given)
    except ValidationError as error:
        raise InputError(fault_line(error, given, bounds)) from None


def env_file() -> dict[str, str]:
    """Return the variables of the `.env` file here; raise InputError naming a byte that is not UTF-8."""
    try:
        found = dotenv_values(".env", encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise InputError(f".env: not UTF-8 text ({byte}): save it as UTF-8") from error
    return {name: value for name, value in found.items() if value is not None}


def _with_dependent_defaults(settings: Settings, given: Mapping[str, str]) -> Settings:
    """Return the settings with those defaults that depend on other settings; check what depends on several."""
    address = settings.ray_address
    if settings.executor == "ray" and not re.fullmatch(r"(auto|local|[^:/\s]+:\d+)?", address):
        raise InputError(f"RAY_ADDRESS must be host:port, auto or local: {address!r}")
    if settings.local and settings.concurrency == 0:  # its engine takes all requests as one batch
        raise InputError("CONCURRENCY 'auto' is for an endpoint: a local model (MODEL_DIR) wants a number")
    if settings.max_cost and not (settings.prices or settings.token_price):
        raise InputError(f"MAX_COST={settings.max_cost:g} needs prices: set PRICES (a file) or TOKEN_PRICE")
    changes: dict[str, Any] = {}
    if settings.actions == TOOLS and settings.action_format != Settings.action_format:
        raise InputError(f"ACTION_FORMAT={settings.action_format} is of replies in text: ACTIONS is {TOOLS}")
    if settings.actions == TOOLS and "history_reasoning" not in given:
        changes["history_reasoning"] = "keep"
    if settings.local and "concurrency" not in given:
        changes["concurrency"] = LOCAL_CONCURRENCY
    if settings.model_dir and "model_name" not in given:
        changes["model_name"] = Path(settings.model_dir).resolve().name
    if "prompt" not in given and (named := _prompt_of(settings.model_dir)) is not None:
        changes["prompt"] = named
    if "workers" not in given:
        in_flight = replace(settings, **changes).in_flight
        changes["workers"] = default_workers(in_flight, settings.n_rollout, settings.local)
    return settings.override(**changes)


def judge_settings(settings: Settings) -> Settings:
    """Return the settings with the judge in the actor's place; as they are, if the actor judges itself.

    Raises:
        InputError: if the judge has no name.
    """
    url, folder, name = settings.judge_base_url, settings.judge_model_dir, settings.judge_model
    if not (url or folder or name):
        return settings
    if not (folder or name):
        raise InputError(
            f"JUDGE_MODEL is not set: the judge's name at JUDGE_BASE_URL={without_password(url)}"
        )
    elsewhere = bool(url or folder)
    return replace(
        settings,
        model_name=name or Path(folder).resolve().name,
        openai_base_url=url if elsewhere else settings.openai_base_url,
        openai_api_key=settings.judge_api_key or ("" if elsewhere else settings.openai_api_key),
        model_dir=folder if elsewhere else "",
        chat_template="",
        actions=Settings.actions,
    ).override(prompt=_prompt_of(folder) or "full")


def _prompt_of(model_dir: str) -> str | None:
    """Return the prompt that the model's own config names, or None."""
    path = Path(model_dir, "config.json")
    if not model_dir or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"MODEL_DIR: {path} is not JSON: {error}") from error
    return str(config[PROMPT_KEY]) if isinstance(config, dict) and PROMPT_KEY in config else None

"""Environment variables and `.env` -> one frozen `Settings`. The only module that reads os.environ.

It checks values once and names the variable in the error. It opens no connection and loads no model.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from mcts_utils.types import InputError

PROMPT_KEY = "agent_r_prompt"  # in MODEL_DIR/config.json: the prompt that the model was trained with
ENDPOINT_CONCURRENCY = 16  # requests in flight
LOCAL_CONCURRENCY = 64  # a local model answers them in batches
MOST_TREES = 64  # at once, where fewer would fill the slots
AUTO_MOST = 128  # CONCURRENCY=auto: requests in flight at most
PROMPT_KEYS = ("full", "brief")
EXECUTORS = ("threads", "ray")


@dataclass(frozen=True)
class Settings:
    """What every stage reads. Names are the environment variables' names in lower case."""

    task: str = "textcraft"
    model_name: str = ""  # as the endpoint knows it, and the folder's name in every result path
    model_dir: str = ""  # folder of a local transformers model
    model_type: str = ""  # suffix of the test results' folder
    openai_api_key: str = field(default="", repr=False)
    openai_base_url: str = ""
    env_server_base: str = ""
    max_depth: int = 20  # environment steps from the root to a leaf
    itera: int = 8  # search iterations per tree
    n_gen: int = 4  # candidate turns per expansion
    n_rollout: int = 8  # rollouts per iteration; 0: one descent by expansions
    temp: float = 1.0
    max_token_length: int = 256  # new tokens per reply
    alpha: float = 0.5  # a good trajectory's reward is above it, Eq. 4
    beta: float = 0.2  # least gap between good and bad rewards, Eq. 4
    uct_c: float = 0.25
    judge_wave: int = 4  # verdicts of one path asked for at once; 0: the whole path
    prompt: str = "full"
    seed: int = 0
    grounding: bool = True  # sciworld: a refused action is mapped to the nearest valid one
    concurrency: int = ENDPOINT_CONCURRENCY  # requests in flight; 0: as many as the endpoint gets faster with
    workers: int = 6  # trees (or test tasks) at once
    executor: str = "threads"  # of this process, or "ray": worker processes all over a cluster
    ray_address: str = (
        ""  # host:port of the head node; empty: "auto", the cluster that this machine belongs to
    )
    ray_workers: int = 0  # processes; 0: one per node, or one per share of a GPU
    ray_cpus_per_worker: float = 1.0  # cores that Ray sets aside
    ray_gpus_per_worker: float = 0.0  # GPUs, may be a share

    @property
    def local(self) -> bool:
        """True if MODEL_DIR answers rather than an endpoint."""
        return bool(self.model_dir) and not self.openai_base_url

    @property
    def in_flight(self) -> int:
        """Requests in flight at most."""
        return self.concurrency or AUTO_MOST

    def public(self) -> dict[str, Any]:
        """All settings but the key: what manifests and trees may record."""
        return {name: value for name, value in asdict(self).items() if name != "openai_api_key"}

    def override(self, **changes: Any) -> Settings:
        """A copy with the flags that were given: None and "" mean "not given"."""
        return replace(self, **{name: value for name, value in changes.items() if value not in (None, "")})

    def require(self, *names: str) -> Settings:
        """Self, if each of the settings has a value.

        Raises:
            InputError: naming the first variable that is missing.
        """
        for name in names:
            if getattr(self, name) == "":
                raise InputError(f"{name.upper()} is not set (environment, .env or flag)")
        return self


def settings_from_env(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ`, or from os.environ over the `.env` file of the working folder.

    Raises:
        InputError: naming the variable and its value.
    """
    if environ is None:
        environ = {**{k: v for k, v in dotenv_values(".env").items() if v is not None}, **os.environ}
    read = _Reader(environ)
    model_dir = read.text("MODEL_DIR")
    if model_dir and not Path(model_dir).is_dir():
        raise InputError(f"MODEL_DIR is not a folder: {model_dir!r}")
    base_url = read.text("OPENAI_BASE_URL")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise InputError(f"OPENAI_BASE_URL must begin with http:// or https://: {base_url!r}")
    n_rollout = read.integer("N_ROLLOUT", 8, 0)
    local = bool(model_dir) and not base_url
    concurrency = _concurrency(read, local)
    return Settings(
        task=read.text("TASK", "textcraft"),
        model_name=read.text("MODEL_NAME", Path(model_dir).resolve().name if model_dir else ""),
        model_dir=model_dir,
        model_type=read.text("MODEL_TYPE"),
        openai_api_key=read.text("OPENAI_API_KEY"),
        openai_base_url=base_url,
        env_server_base=read.text("ENV_SERVER_BASE"),
        max_depth=read.integer("MAX_DEPTH", 20, 1),
        itera=read.integer("ITERA", 8, 1),
        n_gen=read.integer("N_GEN", 4, 1),
        n_rollout=n_rollout,
        temp=read.number("TEMP", 1.0, 0.0, 100.0),
        max_token_length=read.integer("MAX_TOKEN_LENGTH", 256, 1),
        alpha=read.number("ALPHA", 0.5, 0.0, 1.0),
        beta=read.number("BETA", 0.2, 0.0, 1.0),
        uct_c=read.number("UCT_C", 0.25, 0.0, 1e6),
        judge_wave=read.integer("JUDGE_WAVE", 4, 0),
        prompt=read.choice("PROMPT", _model_prompt(model_dir), PROMPT_KEYS),
        seed=read.integer("SEED", 0, 0),
        grounding=read.choice("ACTION_GROUNDING", "1", ("0", "1")) == "1",
        concurrency=concurrency,
        workers=read.integer("WORKERS", default_workers(concurrency or AUTO_MOST, n_rollout, local), 1),
        executor=read.choice("EXECUTOR", "threads", EXECUTORS),
        ray_address=_ray_address(read),
        ray_workers=read.integer("RAY_WORKERS", 0, 0),
        ray_cpus_per_worker=read.number("RAY_CPUS_PER_WORKER", 1.0, 0.01, 1e4),
        ray_gpus_per_worker=read.number("RAY_GPUS_PER_WORKER", 0.0, 0.0, 1e4),
    )


def _ray_address(read: _Reader) -> str:
    """ "auto", "local" or host:port. Ray's own variable: looked at only where it is used."""
    address = read.text("RAY_ADDRESS")
    wrong = address not in ("", "auto", "local") and not re.fullmatch(r"[^:/\s]+:\d+", address)
    if wrong and read.text("EXECUTOR") == "ray":
        raise InputError(f"RAY_ADDRESS must be host:port, auto or local: {address!r}")
    return address


def _concurrency(read: _Reader, local: bool) -> int:
    """Requests in flight; 0 for "auto", which a local model (it takes whatever comes as one batch) has no use for."""
    if read.text("CONCURRENCY") == "auto":
        if local:
            raise InputError(
                "CONCURRENCY 'auto' is for an endpoint: a local model (MODEL_DIR) wants a number"
            )
        return 0
    return read.integer("CONCURRENCY", LOCAL_CONCURRENCY if local else ENDPOINT_CONCURRENCY, 1)


def default_workers(concurrency: int, n_rollout: int, local: bool = False) -> int:
    """Trees at once: enough that others fill the slots while one tree waits for its last rollout.

    A local model keeps the keys and values of the conversations under way; more of them than it has room for would
    only push each other out.
    """
    share = concurrency / max(1, n_rollout)
    if local:
        return max(2, math.ceil(share))
    # Many trees, so that none is left over to end alone; more than MOST_TREES only where the slots ask for them.
    return max(2, math.ceil(3 * share), min(MOST_TREES, math.ceil(8 * share)))


def _model_prompt(model_dir: str) -> str:
    """The prompt that the model's own config names, else "full"."""
    path = Path(model_dir, "config.json")
    if not model_dir or not path.is_file():
        return "full"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"MODEL_DIR: {path} is not JSON: {error}") from error
    return str(config.get(PROMPT_KEY, "full")) if isinstance(config, dict) else "full"


class _Reader:
    """Reads and checks one variable at a time; an empty value counts as not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or default

    def choice(self, name: str, default: str, options: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in options:
            raise InputError(f"{name} must be one of {', '.join(options)}: {value!r}")
        return value

    def integer(self, name: str, default: int, low: int) -> int:
        return int(self._parsed(name, default, int, low, math.inf, "a whole number"))

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return self._parsed(name, default, float, low, high, "a number")

    def _parsed(
        self, name: str, default: float, parse: Callable[[str], float], low: float, high: float, kind: str
    ) -> float:
        raw = self.text(name)
        try:
            value = parse(raw) if raw else default
        except ValueError:
            raise InputError(f"{name} must be {kind}: {raw!r}") from None
        if not low <= value <= high:  # also refuses nan
            bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise InputError(f"{name} must be {bounds}: {raw!r}")
        return value

"""Every setting once: name, default, bounds and sentence.

The one-line errors, docs/configuration.md and .env.example are made from here. It reads no environment: reader.py does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from mcts_utils.config import checks
from mcts_utils.config.concurrency import (
    ENDPOINT_CONCURRENCY,
    LOCAL_CONCURRENCY,
    MAX_AUTO_CONCURRENCY,
    MAX_TREES,
    default_workers,
)
from mcts_utils.config.faults import fault_line, variable
from mcts_utils.types import InputError

N_ROLLOUT = 8

ANSWERS, ACTS, SEARCH, REVISION, MACHINES = (
    "Who answers",
    "What it acts in",
    "Stage 1, search",
    "Stage 2, revision (Equation 4)",
    "More than one machine",
)
JUDGE, LIVE = "Who judges, if not the actor", "While it runs"


def _var(default: Any, group: str, sentence: str, shown: str | None = None, **bounds: Any) -> Any:
    """Return a field; `shown` is the default as people read it, where it depends on other settings."""
    return Field(default, description=sentence, json_schema_extra={"group": group, "shown": shown}, **bounds)


@dataclass(frozen=True)
class Settings:
    """What every stage reads. A field is named as its environment variable in lower case."""

    openai_base_url: Annotated[str, BeforeValidator(checks.http_url)] = _var(
        "",
        ANSWERS,
        "Base URL of an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, Ollama, OpenAI), such as "
        "http://127.0.0.1:8000/v1.",
    )
    openai_api_key: Annotated[str, BeforeValidator(checks.key)] = _var(
        "", ANSWERS, "Its key; local servers want none. Never written to a log or a manifest.", repr=False
    )
    model_name: str = _var(
        "",
        ANSWERS,
        "The model's name as the endpoint knows it; also the name of the folder in every result path.",
        "name of MODEL_DIR",
    )
    model_dir: Annotated[str, BeforeValidator(checks.is_folder)] = _var(
        "",
        ANSWERS,
        "Folder of a local transformers model, such as models/tiny_actor. It answers where OPENAI_BASE_URL is empty "
        "(CUDA, MPS or CPU).",
    )
    chat_template: Annotated[str, BeforeValidator(checks.is_file)] = _var(
        "",
        ANSWERS,
        "File of a Jinja chat template, for a MODEL_DIR that has none or should be trained and asked with another.",
        "the model's own",
    )
    number_format: Literal["auto", "float32", "bfloat16"] = _var(
        "auto",
        ANSWERS,
        "Numbers that a local model on a CPU computes with. auto: bfloat16 where it is much faster and the model has "
        "20 million weights or more, else float32.",
    )
    cache_gb: float = _var(
        0.0,
        ANSWERS,
        "GiB of memory for a local model's keys and values, at most. 0: 2 on a CPU (and a quarter of the memory), 80 % "
        "of what is free on a GPU.",
        "0",
        ge=0,
        le=1e4,
    )
    model_type: str = _var(
        "", ANSWERS, "Suffix of the folder of test results: test_result/{TASK}/{MODEL_NAME}_{MODEL_TYPE}."
    )
    endpoint_patience: float = _var(
        180.0,
        ANSWERS,
        "Seconds for which an endpoint that answers nobody is waited for (a vLLM server takes 27 to 115 s to restart); "
        "then the stage ends, and the same command continues.",
        ge=0,
        le=86400,
    )
    max_token_length: int = _var(256, ANSWERS, "New tokens per reply, at most.", ge=1)
    prompt: Literal["full", "brief"] = _var(
        "full",
        ANSWERS,
        "Prompt set: full for a model that was never trained here, or brief.",
        "what MODEL_DIR/config.json names, else full",
    )
    concurrency: Annotated[int, BeforeValidator(checks.number_or_auto)] = _var(
        ENDPOINT_CONCURRENCY,
        ANSWERS,
        "Requests in flight, at least 1. auto: as many as make an endpoint's answers come faster.",
        f"{ENDPOINT_CONCURRENCY}; local model {LOCAL_CONCURRENCY}",
        gt=-1,
    )
    task: str = _var(
        "textcraft",
        ACTS,
        "Environment: textcraft, sciworld, webshop or babyai; or your own: FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION "
        "or gymnasium:ID.",
    )
    task_source: str = ""  # of an environment of your own, as TASK gives it; `task` is its name then
    env_server_base: str = _var(
        "",
        ACTS,
        "Base URL of the environment server, such as http://127.0.0.1:26001 (flag --env_server_base).",
    )
    server_patience: float = _var(
        120.0,
        ACTS,
        "Seconds for which an environment server that has stopped answering is waited for; after that the stage ends, "
        "and the same command continues.",
        ge=0,
        le=86400,
    )
    max_sessions: int = _var(
        0,
        ACTS,
        "Sessions that a stage has open on a public environment server, at most; rollouts and episodes wait for "
        "a free one. 0: 8 for ScienceWorld, whose server starts a JVM for each, else no limit.",
        "0",
        ge=0,
        le=100_000,
    )
    grounding: Annotated[bool, BeforeValidator(checks.zero_or_one)] = _var(
        True,
        ACTS,
        "ScienceWorld: 1 maps an action that the world does not understand to the nearest valid one; 0 leaves it "
        "refused.",
        "1",
    )
    action_format: Literal["any", "agentgym", "eto", "react"] = _var(
        "any", ACTS, "How an action is read from a reply: any form, or only that of AgentGym, ETO or ReAct."
    )
    judge_model: str = _var(
        "",
        JUDGE,
        "Name of another model that judges steps, at JUDGE_BASE_URL or, if that is empty, where the actor answers. The "
        "actor judges itself where no variable of this group is set.",
        "name of JUDGE_MODEL_DIR",
    )
    judge_base_url: Annotated[str, BeforeValidator(checks.http_url)] = _var(
        "", JUDGE, "Base URL of the judge's endpoint."
    )
    judge_api_key: Annotated[str, BeforeValidator(checks.key)] = _var(
        "", JUDGE, "Its key. The actor's key is sent to the actor's endpoint only.", repr=False
    )
    judge_model_dir: Annotated[str, BeforeValidator(checks.is_folder)] = _var(
        "", JUDGE, "Folder of a local model that judges, in place of an endpoint."
    )
    max_depth: int = _var(20, SEARCH, "Environment steps from the root to a leaf.", ge=1)
    itera: int = _var(8, SEARCH, "Search iterations per tree.", ge=1)
    n_gen: int = _var(4, SEARCH, "Candidate turns drawn at a node until it counts as expanded.", ge=1)
    n_rollout: int = _var(
        N_ROLLOUT,
        SEARCH,
        "Rollouts per iteration; 0: one descent by expansions instead, as in the public reference.",
        ge=0,
    )
    temp: float = _var(1.0, SEARCH, "Sampling temperature of the search.", ge=0, le=100)
    uct_c: float = _var(0.25, SEARCH, "Exploration constant c of UCT.", ge=0, le=1e6)
    workers: int = _var(
        default_workers(ENDPOINT_CONCURRENCY, N_ROLLOUT),
        SEARCH,
        "Trees (or test tasks) at once.",
        f"8 x CONCURRENCY / N_ROLLOUT (at most {MAX_TREES}, unless 3 x is more; local model: 1 x), at least 2",
        ge=1,
    )
    seed: int = _var(
        0, SEARCH, "Each request's seed derives from (SEED, task, iteration, rollout, step).", ge=0
    )
    alpha: float = _var(
        0.5,
        REVISION,
        "A good trajectory's reward is above it: 0.5, 0.7, 1.0 in the three iterations.",
        ge=0,
        le=1,
    )
    beta: float = _var(
        0.2, REVISION, "Least gap between the rewards of a good and a bad trajectory.", ge=0, le=1
    )
    judge_wave: int = _var(4, REVISION, "Verdicts of one path asked for at once; 0: of the whole path.", ge=0)
    executor: Literal["threads", "ray"] = _var(
        "threads",
        MACHINES,
        "threads of this process, or ray: worker processes on the nodes of a Ray cluster. CONCURRENCY and WORKERS hold "
        "for each of them.",
    )
    ray_address: str = _var(
        "",
        MACHINES,
        "host:port of the cluster's head node; auto: the cluster that this machine belongs to; local: a cluster for "
        "this run alone.",
        "auto",
    )
    ray_workers: int = _var(
        0,
        MACHINES,
        "Worker processes.",
        "one per node; with GPUs one per RAY_GPUS_PER_WORKER of the cluster's",
        ge=0,
    )
    ray_cpus_per_worker: float = _var(
        1.0,
        MACHINES,
        "Cores that Ray sets aside for each; a local model on a CPU computes with so many.",
        ge=0.01,
        le=1e4,
    )
    ray_gpus_per_worker: float = _var(
        0.0,
        MACHINES,
        "GPUs that Ray sets aside for each; a local model on GPUs wants 1, or a share such as 0.5.",
        ge=0,
        le=1e4,
    )
    token_price: Annotated[str, BeforeValidator(checks.two_prices)] = _var(
        "", LIVE, "Dollars of a million prompt and completion tokens, such as `3 15`: shows the cost so far."
    )
    tensorboard_dir: str = _var(
        "", LIVE, "Folder for a stage's figures in TensorBoard's format (package tensorboard)."
    )
    wandb_project: str = _var("", LIVE, "Project for them in Weights & Biases, offline (package wandb).")

    @property
    def local(self) -> bool:
        """Return True if the model of MODEL_DIR answers, not an endpoint."""
        return bool(self.model_dir) and not self.openai_base_url

    @property
    def in_flight(self) -> int:
        """Return the number of requests in flight, at most."""
        return self.concurrency or MAX_AUTO_CONCURRENCY

    def public(self) -> dict[str, Any]:
        """Return all settings but the API key and passwords in URLs, as manifests and trees may record them."""
        unsaid = {"openai_api_key", "judge_api_key", "token_price", "tensorboard_dir", "wandb_project"}
        rare = ("task_source", "judge_model", "judge_base_url", "judge_model_dir")
        unsaid |= {name for name in rare if not getattr(self, name)}
        plain = {name: value for name, value in asdict(self).items() if name not in unsaid}
        urls = ("env_server_base", "openai_base_url", "judge_base_url")
        return plain | {name: checks.without_password(plain[name]) for name in urls if name in plain}

    def override(self, **changes: Any) -> Settings:
        """Return a copy with the flags that were given; None and "" mean "not given".

        Raises:
            InputError: naming the variable and the value that is out of bounds.
        """
        given = {name: value for name, value in changes.items() if value not in (None, "")}
        try:
            return replace(self, **given)
        except ValidationError as error:
            raise InputError(fault_line(error, given, bounds)) from None

    def require(self, *names: str) -> Settings:
        """Return self; raise InputError if one of the settings is empty.

        Raises:
            InputError: naming the first variable that is missing.
        """
        for name in names:
            if getattr(self, name) == "":
                raise InputError(f"{variable(name)} is not set (environment, .env or flag)")
        return self


def bounds(field: str) -> str:
    """Return what a number must be, such as "at least 1" or "between 0 and 1"; empty for other settings."""
    found: dict[str, float] = {}
    for limit in vars(Settings)["__pydantic_fields__"][field].metadata:
        found |= {name: getattr(limit, name) for name in ("ge", "le") if hasattr(limit, name)}
    if "le" in found:
        return f"between {found['ge']:g} and {found['le']:g}"
    return f"at least {found['ge']:g}" if found else ""

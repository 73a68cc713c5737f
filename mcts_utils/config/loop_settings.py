"""Hold the settings of search, revision and machines, and of what is shown while a stage runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from mcts_utils.config import checks
from mcts_utils.config.concurrency import ENDPOINT_CONCURRENCY, MAX_TREES, default_workers
from mcts_utils.config.declare import LIVE, MACHINES, MAX_SEED, REVISION, SEARCH, var

N_ROLLOUT = 8
MOST = 1_000_000  # of what is counted


@dataclass(frozen=True)
class LoopSettings:
    """How a stage searches, revises, is spread and is watched. A field is named as its environment variable."""

    max_depth: int = var(20, SEARCH, "Environment steps from the root to a leaf.", ge=1, le=10_000)
    itera: int = var(8, SEARCH, "Search iterations per tree.", ge=1, le=MOST)
    n_gen: int = var(4, SEARCH, "Candidate turns drawn at a node until it counts as expanded.", ge=1, le=1000)
    n_rollout: int = var(
        N_ROLLOUT,
        SEARCH,
        "Rollouts per iteration; 0: one descent by expansions instead, as in the public reference.",
        ge=0,
        le=10_000,
    )
    temp: float = var(1.0, SEARCH, "Sampling temperature of the search.", ge=0, le=100)
    uct_c: float = var(0.25, SEARCH, "Exploration constant c of UCT.", ge=0, le=1_000_000)
    workers: int = var(
        default_workers(ENDPOINT_CONCURRENCY, N_ROLLOUT),
        SEARCH,
        "Trees (or test tasks) at once.",
        f"8 x CONCURRENCY / N_ROLLOUT (at most {MAX_TREES}, unless 3 x is more; local model: 1 x), at least 2",
        ge=1,
        le=10_000,
    )
    seed: int = var(
        0,
        SEARCH,
        "Each request's seed derives from (SEED, task, iteration, rollout, step).",
        ge=0,
        le=MAX_SEED,
    )
    alpha: float = var(
        0.5,
        REVISION,
        "A good trajectory's reward is above it: 0.5, 0.7, 1.0 in the three iterations.",
        ge=0,
        le=1,
    )
    beta: float = var(
        0.2, REVISION, "Least gap between the rewards of a good and a bad trajectory.", ge=0, le=1
    )
    judge_wave: int = var(
        4, REVISION, "Verdicts of one path asked for at once; 0: of the whole path.", ge=0, le=1000
    )
    judge_votes: int = var(
        1, REVISION, "Verdicts on each step; the label that most of them give counts, and a tie is uncertain.", ge=1,
        le=99,
    )  # fmt: skip
    executor: Literal["threads", "ray"] = var(
        "threads",
        MACHINES,
        "threads of this process, or ray: worker processes on the nodes of a Ray cluster. CONCURRENCY and WORKERS hold "
        "for each of them.",
    )
    ray_address: str = var(
        "",
        MACHINES,
        "host:port of the cluster's head node; auto: the cluster that this machine belongs to; local: a cluster for "
        "this run alone.",
        "auto",
    )
    ray_workers: int = var(
        0,
        MACHINES,
        "Worker processes.",
        "one per node; with GPUs one per RAY_GPUS_PER_WORKER of the cluster's",
        ge=0,
        le=10_000,
    )
    ray_cpus_per_worker: float = var(
        1.0,
        MACHINES,
        "Cores that Ray sets aside for each; a local model on a CPU computes with so many.",
        ge=0.01,
        le=10_000,
    )
    ray_gpus_per_worker: float = var(
        0.0,
        MACHINES,
        "GPUs that Ray sets aside for each; a local model on GPUs wants 1, or a share such as 0.5.",
        ge=0,
        le=10_000,
    )
    token_price: Annotated[str, BeforeValidator(checks.two_prices)] = var(
        "", LIVE, "Dollars of a million prompt and completion tokens, such as `3 15`."
    )
    prices: Annotated[str, BeforeValidator(checks.is_file)] = var(
        "",
        LIVE,
        "File with the prices of models (.json, .toml or .csv): model, and dollars of a million `prompt`, `completion` "
        "and, if it has one, `cached` prompt tokens. TOKEN_PRICE holds for models that it does not name.",
    )
    max_tokens_total: int = var(
        0, LIVE, "Prompt and completion tokens that a stage pays for in one output folder, at most; 0: any.", ge=0,
        le=10**15,
    )  # fmt: skip
    max_cost: float = var(
        0.0, LIVE, "Dollars that it pays there, at most; needs PRICES or TOKEN_PRICE. 0: any.", "0", ge=0, le=10**9
    )  # fmt: skip
    max_hours: float = var(0.0, LIVE, "Hours that it works there, at most; 0: any.", "0", ge=0, le=100_000)
    tensorboard_dir: str = var(
        "", LIVE, "Folder for a stage's figures in TensorBoard's format (package tensorboard)."
    )
    wandb_project: str = var("", LIVE, "Project for them in Weights & Biases, offline (package wandb).")

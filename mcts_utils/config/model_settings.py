"""Hold the settings of the models that answer and judge, and of the environment that they act in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from mcts_utils.config import checks
from mcts_utils.config.concurrency import ENDPOINT_CONCURRENCY, LOCAL_CONCURRENCY
from mcts_utils.config.declare import ACTS, ANSWERS, JUDGE, var


@dataclass(frozen=True)
class ModelSettings:
    """Who answers, what it acts in, who judges. A field is named as its environment variable in lower case."""

    openai_base_url: Annotated[str, BeforeValidator(checks.http_url)] = var(
        "",
        ANSWERS,
        "Base URL of an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, Ollama, OpenAI), such as "
        "http://127.0.0.1:8000/v1.",
    )
    openai_api_key: Annotated[str, BeforeValidator(checks.key)] = var(
        "", ANSWERS, "Its key; local servers want none. Never written to a log or a manifest.", repr=False
    )
    model_name: str = var(
        "",
        ANSWERS,
        "The model's name as the endpoint knows it; also the name of the folder in every result path.",
        "name of MODEL_DIR",
    )
    model_dir: Annotated[str, BeforeValidator(checks.is_folder)] = var(
        "",
        ANSWERS,
        "Folder of a local transformers model, such as models/tiny_actor. It answers where OPENAI_BASE_URL is empty "
        "(CUDA, MPS or CPU).",
    )
    chat_template: Annotated[str, BeforeValidator(checks.is_file)] = var(
        "",
        ANSWERS,
        "File of a Jinja chat template, for a MODEL_DIR that has none or should be trained and asked with another.",
        "the model's own",
    )
    number_format: Literal["auto", "float32", "bfloat16"] = var(
        "auto",
        ANSWERS,
        "Numbers that a local model on a CPU computes with. auto: bfloat16 where it is much faster and the model has "
        "20 million weights or more, else float32. `train.py --config cpu` takes products in it; auto: bfloat16 unless "
        "the CPU has no instructions for it.",
    )
    cache_gb: float = var(
        0.0,
        ANSWERS,
        "GiB of memory for a local model's keys and values, at most. 0: 2 on a CPU (and a quarter of the memory), 80 % "
        "of what is free on a GPU.",
        "0",
        ge=0,
        le=10_000,
    )
    model_type: str = var(
        "", ANSWERS, "Suffix of the folder of test results: test_result/{TASK}/{MODEL_NAME}_{MODEL_TYPE}."
    )
    endpoint_patience: float = var(
        180.0,
        ANSWERS,
        "Seconds for which an endpoint that answers nobody is waited for (a vLLM server takes 27 to 115 s to restart); "
        "then the stage ends, and the same command continues.",
        ge=0,
        le=86400,
    )
    max_token_length: int = var(256, ANSWERS, "New tokens per reply, at most.", ge=1, le=1_000_000)
    think_tokens: int = var(
        0,
        ANSWERS,
        "More new tokens per reply, for a model that reasons before it answers.",
        ge=0,
        le=1_000_000,
    )
    history_reasoning: Literal["drop", "keep", "last"] = var(
        "drop",
        ANSWERS,
        "Reasoning of earlier turns that the model sees: drop (none, as most chat templates do), keep (all of it) or "
        "last (that of its last turn).",
        "drop; keep with ACTIONS=tools",
    )
    prompt: Literal["full", "brief"] = var(
        "full",
        ANSWERS,
        "Prompt set: full for a model that was never trained here, or brief.",
        "what MODEL_DIR/config.json names, else full",
    )
    concurrency: Annotated[int, BeforeValidator(checks.number_or_auto)] = var(
        ENDPOINT_CONCURRENCY,
        ANSWERS,
        "Requests in flight, at least 1. auto: as many as make an endpoint's answers come faster.",
        f"{ENDPOINT_CONCURRENCY}; local model {LOCAL_CONCURRENCY}",
    )
    task: str = var(
        "textcraft",
        ACTS,
        "Environment: textcraft, sciworld, webshop, babyai, alfworld, maze, wordle, sqlgym, weather, movie, todo, "
        "sheet or academia; or your own: FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or gymnasium:ID.",
    )
    task_source: str = ""  # of an environment of your own, as TASK gives it; `task` is its name then
    env_server_base: Annotated[str, BeforeValidator(checks.http_url)] = var(
        "",
        ACTS,
        "Base URL of the environment server, such as http://127.0.0.1:26001 (flag --env_server_base).",
    )
    server_patience: float = var(
        120.0,
        ACTS,
        "Seconds for which an environment server that has stopped answering is waited for; after that the stage ends, "
        "and the same command continues.",
        ge=0,
        le=86400,
    )
    max_sessions: int = var(
        0,
        ACTS,
        "Sessions that a stage has open on a public environment server, at most; rollouts and episodes wait for "
        "a free one. 0: 8 for ScienceWorld, whose server starts a JVM for each, and for SQLGym, which has no more; "
        "else no limit.",
        "0",
        ge=0,
        le=100_000,
    )
    grounding: Annotated[bool, BeforeValidator(checks.zero_or_one)] = var(
        True,
        ACTS,
        "ScienceWorld: 1 maps an action that the world does not understand to the nearest valid one; 0 leaves it "
        "refused.",
        "1",
    )
    actions: Literal["text", "tools"] = var(
        "text",
        ACTS,
        "How the model acts: text (a command in its reply) or tools (calls of tools: act(command), or those that the "
        "environment states).",
    )
    action_format: Literal["any", "agentgym", "eto", "react"] = var(
        "any", ACTS, "How an action is read from a reply: any form, or only that of AgentGym, ETO or ReAct."
    )
    judge_model: str = var(
        "",
        JUDGE,
        "Name of another model that judges steps, at JUDGE_BASE_URL or, if that is empty, where the actor answers. The "
        "actor judges itself where no variable of this group is set.",
        "name of JUDGE_MODEL_DIR",
    )
    judge_base_url: Annotated[str, BeforeValidator(checks.http_url)] = var(
        "", JUDGE, "Base URL of the judge's endpoint."
    )
    judge_api_key: Annotated[str, BeforeValidator(checks.key)] = var(
        "", JUDGE, "Its key. The actor's key is sent to the actor's endpoint only.", repr=False
    )
    judge_model_dir: Annotated[str, BeforeValidator(checks.is_folder)] = var(
        "", JUDGE, "Folder of a local model that judges, in place of an endpoint."
    )

"""The measurements, one function each: a search, its revision, sessions without copies, the serial way.

Every part has servers and a folder of its own. table.py shows the figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.actors.endpoint import EndpointActor
from mcts_utils.actors.factory import make_actor
from mcts_utils.bench.processes import ROOT, ProcessUsage, ServerProcess, measured, python, server
from mcts_utils.bench.reference import reference_bytes
from mcts_utils.bench.serial_search import SerialWay
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.tree import Tree, nodes
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_json
from mcts_utils.storage.layout import tree_files, tree_folder
from mcts_utils.types import Environment, StepResult, Task

TASK, MODEL = "textcraft", "textcraft-expert"
Figures = dict[str, Any]


@dataclass(frozen=True)
class LoadFigures:
    """An endpoint, and how it is used."""

    slots: int  # requests that it works on at once
    latency: float  # seconds of one request
    concurrency: str  # requests that we keep in flight, or "auto"
    noise: float  # share of the expert's slips, and of its wrong verdicts


@dataclass(frozen=True)
class Size:
    """How much is searched; `n_rollout` 0 is the reference's descent."""

    tasks: int
    itera: int
    n_rollout: int
    n_gen: int = 4
    max_depth: int = 20


@dataclass(frozen=True)
class Site:
    """One part's servers and folder."""

    chat: ServerProcess
    env: ServerProcess
    load: LoadFigures
    folder: Path

    def variables(self, size: Size) -> dict[str, str]:
        """What the stages read."""
        return {
            "TASK": TASK,
            "MODEL_NAME": MODEL,
            "OPENAI_BASE_URL": self.chat.url,
            "ENV_SERVER_BASE": self.env.url,
            "CONCURRENCY": self.load.concurrency,
            "WORKERS": str(min(64, size.tasks)),
            "ITERA": str(size.itera),
            "N_GEN": str(size.n_gen),
            "N_ROLLOUT": str(size.n_rollout),
            "MAX_DEPTH": str(size.max_depth),
        }

    def settings(self, size: Size) -> Settings:
        """The same for a search in this process."""
        return settings_from_env(self.variables(size))

    def ids(self, count: int) -> list[int]:
        """Training tasks, spread evenly over the difficulties."""
        train = self.env.get("/split")["train"]
        return [train[i * len(train) // count] for i in range(min(count, len(train)))]

    def served(self) -> Figures:
        """What the endpoint counted."""
        chat = ServerProcess(self.chat.url.removesuffix("/v1"), self.chat.pid)
        return chat.get("/stats")


@contextmanager
def site(load: LoadFigures, folder: Path) -> Iterator[Site]:
    """Both servers, fresh, each in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    chat = python("-m", "mcts_utils.servers.mock_llm", "--port", "0", "--slots", str(load.slots))
    chat += ["--latency", str(load.latency), "--noise", str(load.noise)]
    env = python("-m", "mcts_utils.servers.textcraft", "--port", "0")
    with server(chat, folder / "chat.log") as one, server(env, folder / "env.log") as two:
        yield Site(one, two, load, folder)


def search(load: LoadFigures, size: Size, folder: Path) -> Figures:
    """Stage 1 as a user runs it: mcts_collection.py in its own process."""
    with site(load, folder) as at:
        ids = ",".join(map(str, at.ids(size.tasks)))
        command = python(str(ROOT / "mcts_collection.py"), "--task_ids", ids, "--output_dir", "mcts_result")
        used = measured(command, at.variables(size), folder, folder / "collection.log")
        served, env_cpu = at.served(), at.env.cpu_s()
    manifest = read_json(tree_folder(folder / "mcts_result", TASK, MODEL) / "manifest.json")
    return {
        **processes(used, served, env_cpu),
        **searched(manifest, folder),
        "utilisation": served["utilisation"],
    }


def processes(used: ProcessUsage, served: Figures, env_cpu: float | None) -> Figures:
    """What our process and the two servers used."""
    answers = max(1, served["answers"])
    return {
        "wall_s": round(used.seconds, 2),
        "answers": served["answers"],
        "answers_per_s": round(served["answers"] / max(1e-9, served["wall_s"]), 1),
        "mean_busy_slots": served["mean_busy"],
        "cpu_ms_per_call": round(1e3 * used.cpu_s / answers, 3),
        "peak_rss_mb": round(used.peak_rss_mb, 1),
        "chat_cpu_ms_per_call": round(1e3 * served["cpu_s"] / answers, 3),
        "env_cpu_ms_per_call": None if env_cpu is None else round(1e3 * env_cpu / answers, 3),
        "prompt_shared_share": round(served["shared_chars"] / max(1, served["prompt_chars"]), 4),
    }


def searched(manifest: Figures, folder: Path) -> Figures:
    """What the trees cost. Steps are all that were executed, replays on the way back to a node among them."""
    counts, run = manifest["counts"], manifest["tokens"]["this_run"]
    executed = size = reference = 0
    for index, path in tree_files(
        tree_folder(folder / "mcts_result", TASK, MODEL), "the search's folder"
    ).items():
        tree = load_tree(read_json(path), TASK, index)
        executed += executed_nodes(tree)
        size += path.stat().st_size
        reference += reference_bytes(tree)
    steps = run["env_steps"] + run["replayed_steps"]
    return {
        "trees": counts["trees"],
        "trees_per_s": round(counts["trees"] / manifest["seconds"], 4),
        "failed": counts["failed"],
        "nodes": counts["nodes"],
        "executed_nodes": executed,
        "env_steps": run["env_steps"],
        "replayed_steps": run["replayed_steps"],
        "steps_per_node": round(steps / max(1, executed), 3),
        "calls": run["calls"],
        "calls_per_tree": round(run["calls"] / max(1, counts["trees"]), 1),
        "prompt_tokens_per_tree": round(run["prompt_tokens"] / max(1, counts["trees"])),
        "completion_tokens_per_tree": round(run["completion_tokens"] / max(1, counts["trees"])),
        "in_flight": round(run["in_flight_s"] / max(1e-9, run["busy_s"]), 1),
        "concurrency": run["concurrency"],
        "selections_uct_share": counts["selections_uct_share"],
        "mean_leaf_reward": counts["mean_leaf_reward"],
        "bytes": size,
        "bytes_per_node": round(size / max(1, counts["nodes"])),
        "reference_bytes_per_node": round(reference / max(1, executed)),
    }


def executed_nodes(tree: Tree) -> int:
    """Nodes that cost a step: all but the root and candidates that were never chosen."""
    return sum(node.executed for node in nodes(tree)) - 1


def revision(load: LoadFigures, trees: Path, folder: Path) -> Figures:
    """Stage 2 over the trees of a search, with the endpoint as the judge."""
    with site(load, folder) as at:
        command = python(
            str(ROOT / "path_collection.py"), "--input_dir", str(tree_folder(trees, TASK, MODEL))
        )
        command += ["--output_dir", "records"]
        used = measured(command, at.variables(Size(64, 1, 8)), folder, folder / "revision.log")
        served, env_cpu = at.served(), at.env.cpu_s()
    manifest = read_json(folder / "records" / f"{TASK}_centric.manifest.json")
    verdicts, run = manifest["counts"]["verdicts"], manifest["tokens"]
    judged = sum(count for name, count in verdicts.items() if name not in ("requests", "unparsed"))
    return {
        **processes(used, served, env_cpu),
        "records": manifest["counts"]["written"],
        "pairs": manifest["counts"].get("pairs", 0),
        "judged_steps": judged,
        "requests": verdicts["requests"],
        "verdicts_per_judged_step": round(verdicts["requests"] / judged, 3) if judged else 0.0,
        "in_flight": round(run["in_flight_s"] / max(1e-9, run["busy_s"]), 1),
        "utilisation": served["utilisation"],
    }


class PlainSession(Environment):
    """A session as a public server gives it: nothing beside AgentGym's contract."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def reset(self, index: int) -> Task:
        return self._env.reset(index)

    def step(self, action: str) -> StepResult:
        return self._env.step(action)

    def close(self) -> None:
        self._env.close()


def public(load: LoadFigures, size: Size, folder: Path) -> Figures:
    """The search where sessions can neither be copied nor replayed in one request: steps per new node there."""
    with site(load, folder) as at:
        settings = at.settings(size)
        collection = SearchStage(settings, at.ids(size.tasks), folder / "mcts_result")
        collection.run(lambda: make_actor(settings), lambda: PlainSession(make_environment(TASK, at.env.url)))
    figures = searched(read_json(collection.manifest), folder)
    return {name: figures[name] for name in ("trees", "executed_nodes", "env_steps", "steps_per_node")}


def serial(load: LoadFigures, size: Size, folder: Path, one_by_one: bool) -> Figures:
    """Trees per second of the serial way (serial.py), over some of the tasks."""
    with site(load, folder) as at:
        settings = at.settings(size)
        actor = EndpointActor(at.chat.url, "", MODEL, settings.max_token_length, 1, random.Random(0))
        with closing(actor), closing(make_environment(TASK, at.env.url)) as env:
            way = SerialWay(settings, actor, env, one_by_one)
            began = time.monotonic()
            trees = [way.tree(index) for index in at.ids(size.tasks)]
            seconds = time.monotonic() - began
        served = at.served()
    new = sum(tree.stats["nodes"] - 1 for tree in trees)  # it executes every candidate
    return {
        "trees": len(trees),
        "wall_s": round(seconds, 2),
        "trees_per_s": round(len(trees) / seconds, 4),
        "calls": way.calls,
        "env_steps": way.env_steps,
        "steps_per_node": round(way.env_steps / max(1, new), 3),
        "utilisation": served["utilisation"],
    }

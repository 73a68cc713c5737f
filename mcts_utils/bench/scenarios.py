"""The measurements, one function each: a search, its revision, a search without session copies, a serial search.

Every part has its own servers and folder. table.py formats the figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mcts_utils.actors.endpoint import EndpointActor
from mcts_utils.actors.factory import make_actor
from mcts_utils.bench.processes import ROOT, ProcessUsage, ServerProcess, measured, server
from mcts_utils.bench.reference import reference_bytes
from mcts_utils.bench.serial_search import SerialSimulator
from mcts_utils.bench.table import Figures
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.tree import nodes
from mcts_utils.search.tree_io import finished_tree
from mcts_utils.storage.formats.manifest import RevisionCounts, SearchCounts
from mcts_utils.storage.layout import tree_files, tree_folder
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import Environment, StepResult, Task

TASK, MODEL = "textcraft", "textcraft-expert"


@dataclass(frozen=True)
class EndpointLoad:
    """An endpoint, and the load that the pipeline puts on it."""

    slots: int  # requests that the endpoint works on at once
    latency: float  # seconds of one request
    concurrency: str  # requests kept in flight, or "auto"
    noise: float  # probability of the expert's slips, and of its random verdicts


@dataclass(frozen=True)
class SearchSize:
    """The size of a search."""

    tasks: int  # trees
    itera: int  # iterations of a tree
    n_rollout: int  # rollouts of an iteration; 0: the reference's descent
    n_gen: int = 4  # candidates of an expansion
    max_depth: int = 20


@dataclass(frozen=True)
class Testbed:
    """The servers and the folder of one part."""

    chat: ServerProcess  # the endpoint
    env: ServerProcess  # the environment server
    load: EndpointLoad
    folder: Path

    def variables(self, size: SearchSize) -> dict[str, str]:
        """Return the environment variables of the stages."""
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

    def settings(self, size: SearchSize) -> Settings:
        """Return the same settings, for a search in this process."""
        return settings_from_env(self.variables(size))

    def ids(self, count: int) -> list[int]:
        """Return training task ids, spread evenly over the difficulties."""
        train = self.env.get("/split")["train"]
        return [train[i * len(train) // count] for i in range(min(count, len(train)))]

    def load_stats(self) -> Figures:
        """Return the endpoint's counts."""
        return replace(self.chat, url=self.chat.url.removesuffix("/v1")).get("/stats")


@contextmanager
def testbed(load: EndpointLoad, folder: Path) -> Iterator[Testbed]:
    """Run both servers, each in its own process, during a `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    chat = ["mcts_utils.servers.mock_llm", "--slots", str(load.slots)]
    chat += ["--latency", str(load.latency), "--noise", str(load.noise)]
    env = ["mcts_utils.servers.textcraft"]
    with server(chat, folder / "chat.log") as endpoint, server(env, folder / "env.log") as world:
        yield Testbed(endpoint, world, load, folder)


def search(load: EndpointLoad, size: SearchSize, folder: Path) -> Figures:
    """Measure stage 1 as a user runs it: mcts_collection.py in its own process."""
    with testbed(load, folder) as servers:
        ids = ",".join(map(str, servers.ids(size.tasks)))
        command = [str(ROOT / "mcts_collection.py"), "--task_ids", ids, "--output_dir", "mcts_result"]
        used = measured(command, servers.variables(size), folder, folder / "collection.log")
        served, env_cpu = servers.load_stats(), servers.env.cpu_s()
    figures = {**process_figures(used, served, env_cpu), **search_figures(folder)}
    return figures | {"utilisation": served["utilisation"]}


def process_figures(used: ProcessUsage, served: Figures, env_cpu: float | None) -> Figures:
    """Return what the stage's process and the two servers used."""
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


def search_figures(folder: Path) -> Figures:
    """Return what the trees cost. `steps_per_node` counts all executed steps, replayed ones as well."""
    trees = tree_folder(folder / "mcts_result", TASK, MODEL)
    manifest = read_manifest(trees / "manifest.json")
    counts, run = manifest.counts_as(SearchCounts), manifest.tokens["this_run"]
    executed = tree_bytes = reference = 0
    for path in tree_files(trees, "the search's folder").values():
        tree = finished_tree(path)
        # All nodes that cost a step: not the root, and no candidate that was never chosen.
        executed += sum(node.executed for node in nodes(tree)) - 1
        tree_bytes += path.stat().st_size
        reference += reference_bytes(tree)
    steps, each, every = run["env_steps"] + run["replayed_steps"], max(1, counts.trees), counts.nodes or 0
    return {
        "trees": counts.trees,
        "trees_per_s": round(counts.trees / manifest.seconds, 4),
        "failed": counts.failed,
        "nodes": every,
        "executed_nodes": executed,
        "env_steps": run["env_steps"],
        "replayed_steps": run["replayed_steps"],
        "steps_per_node": round(steps / max(1, executed), 3),
        "calls": run["calls"],
        "calls_per_tree": round(run["calls"] / each, 1),
        "prompt_tokens_per_tree": round(run["prompt_tokens"] / each),
        "completion_tokens_per_tree": round(run["completion_tokens"] / each),
        "in_flight": round(run["in_flight_s"] / max(1e-9, run["busy_s"]), 1),
        "concurrency": run["concurrency"],
        "selections_uct_share": counts.selections_uct_share,
        "mean_leaf_reward": counts.mean_leaf_reward,
        "bytes": tree_bytes,
        "bytes_per_node": round(tree_bytes / max(1, every)),
        "reference_bytes_per_node": round(reference / max(1, executed)),
    }


def revision(load: EndpointLoad, trees: Path, folder: Path) -> Figures:
    """Measure stage 2 over the trees of a search, with the endpoint as the judge."""
    with testbed(load, folder) as servers:
        command = [str(ROOT / "path_collection.py"), "--input_dir", str(tree_folder(trees, TASK, MODEL))]
        command += ["--output_dir", "records"]
        used = measured(command, servers.variables(SearchSize(64, 1, 8)), folder, folder / "revision.log")
        served, env_cpu = servers.load_stats(), servers.env.cpu_s()
    manifest = read_manifest(folder / "records" / f"{TASK}_centric.manifest.json")
    counts, run = manifest.counts_as(RevisionCounts), manifest.tokens
    verdicts = counts.verdicts
    judged = sum(count for name, count in verdicts.items() if name not in ("requests", "unparsed"))
    return {
        **process_figures(used, served, env_cpu),
        "records": counts.written,
        "pairs": counts.pairs or 0,
        "judged_steps": judged,
        "requests": verdicts["requests"],
        "verdicts_per_judged_step": round(verdicts["requests"] / judged, 3) if judged else 0.0,
        "in_flight": round(run["in_flight_s"] / max(1e-9, run["busy_s"]), 1),
        "utilisation": served["utilisation"],
    }


class PlainSession(Environment):
    """A session as on a public server: AgentGym's contract without extensions."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def reset(self, index: int) -> Task:
        return self._env.reset(index)

    def step(self, action: str) -> StepResult:
        return self._env.step(action)

    def close(self) -> None:
        self._env.close()


def public(load: EndpointLoad, size: SearchSize, folder: Path) -> Figures:
    """Measure a search whose sessions can neither be copied nor replayed in one request: its steps per new node."""
    with testbed(load, folder) as servers:
        settings = servers.settings(size)
        stage = SearchStage(settings, servers.ids(size.tasks), folder / "mcts_result")
        stage.run(lambda: make_actor(settings), lambda: PlainSession(make_environment(TASK, servers.env.url)))
    figures = search_figures(folder)
    return {name: figures[name] for name in ("trees", "executed_nodes", "env_steps", "steps_per_node")}


def serial(load: EndpointLoad, size: SearchSize, folder: Path, one_by_one: bool) -> Figures:
    """Measure the trees per second of the serial search (serial_search.py)."""
    with testbed(load, folder) as servers:
        settings = servers.settings(size)
        actor = EndpointActor(servers.chat.url, "", MODEL, settings.max_token_length, 1, random.Random(0))
        with closing(actor), closing(make_environment(TASK, servers.env.url)) as env:
            simulator = SerialSimulator(settings, actor, env, one_by_one)
            began = time.monotonic()
            trees = [simulator.search_task(index) for index in servers.ids(size.tasks)]
            seconds = time.monotonic() - began
        served = servers.load_stats()
    new_nodes = sum(tree.stats["nodes"] - 1 for tree in trees)  # every candidate is executed
    return {
        "trees": len(trees),
        "wall_s": round(seconds, 2),
        "trees_per_s": round(len(trees) / seconds, 4),
        "calls": simulator.calls,
        "env_steps": simulator.env_steps,
        "steps_per_node": round(simulator.env_steps / max(1, new_nodes), 3),
        "utilisation": served["utilisation"],
    }

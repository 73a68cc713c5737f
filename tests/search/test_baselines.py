"""Strategies beside the search: what they spend, what they leave in the tree, and how they go on after a stop."""

from __future__ import annotations

import json
import pickle
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

import mcts_collection
import path_collection
from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.prompts import REVISION_THOUGHTS, is_signal_step
from mcts_utils.replies import parse_reply
from mcts_utils.report.budget import __main__ as report
from mcts_utils.revision.pairs import paths
from mcts_utils.rollouts.episode import replay
from mcts_utils.search.baselines import STRATEGIES, Baseline, best_of_n, direct_revision, open_end
from mcts_utils.search.budget import spent_by
from mcts_utils.search.mcts import Rules
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.tree import Tree, leaves, new_tree, nodes
from mcts_utils.search.tree_io import load_tree, tree_from_dict, tree_to_dict
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, ChatServer, running_chat
from mcts_utils.servers.textcraft.expert import OPENING, answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json
from mcts_utils.types import ActorError, Step, Task
from tests.helpers.noisy_player import NoisyPlayer

IDS = [index for index in load_world().split()["train"] if index < 120][:4]
LISTED = ",".join(map(str, IDS))
TASK = Task("textcraft", 5, "textcraft:toy", "Goal: craft a toy.")
RULES = Rules(n_rollout=3, max_depth=4)


# -- on a script ---------------------------------------------------------------------------------------------------


class Script:
    """What the baselines use of mcts.Simulator and mcts.Explorer: each rollout is the next entry, cut at `max_steps`.

    An entry is a word whose letters are actions; "!" ends the episode with reward 1, "." with 0. None diverges.
    """

    def __init__(self, *entries: str | None) -> None:
        self.entries = list(entries)
        self.asked: list[tuple[str, int, int]] = []  # (actions before, rollouts, max_steps)
        self._spent = 0

    @contextmanager
    def iteration(self, number: int) -> Iterator[Script]:
        self._spent = 0
        yield self

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[tuple[Step, ...] | None]:
        assert max_steps is not None
        self.asked.append(("".join("~" if is_signal_step(s) else s.action for s in path), k, max_steps))
        return [self._rollout(self.entries.pop(0), max_steps) for _ in range(k)]

    def counts(self) -> Mapping[str, int]:
        return {"calls": self._spent, "completions": self._spent}

    def _rollout(self, word: str | None, max_steps: int) -> tuple[Step, ...] | None:
        if word is None:
            return None
        letters = word.rstrip("!.")
        end = word[len(letters) :]
        taken = letters[:max_steps]
        self._spent += len(taken)
        steps = [Step(f"Action: {action}", action, f"did {action}", 0.0) for action in taken]
        if end and taken == letters:
            steps[-1] = replace(steps[-1], reward=float(end == "!"), done=True)
        return tuple(steps)


def grown(strategy, budget: int, script: Script, tree: Tree | None = None) -> Tree:
    tree = tree or new_tree(TASK)
    for _ in strategy(tree, budget, RULES, Random, script):
        pass
    return tree


def words(tree: Tree) -> list[str]:
    return ["".join("~" if is_signal_step(s) else s.action for s in path.steps) for path in paths(tree)]


def test_best_of_n_starts_as_many_at_once_as_are_surely_paid_for():
    script = Script("ab!", "ab!", "ac.", "abcd", "ad.", "abcd", "xy")
    tree = grown(best_of_n, 17, script)
    assert [(k, max_steps) for _, k, max_steps in script.asked] == [(3, 4), (2, 4), (1, 4), (1, 1)]
    assert tree.stats["completions"] == 17
    assert tree.stats["rollouts"] == tree.root.visits == 6


def test_what_the_budget_cuts_off_is_no_trajectory():
    script = Script("abcd", "abx!")
    tree = grown(best_of_n, 6, script)
    assert script.asked == [("", 1, 4), ("", 1, 2)]
    assert (tree.stats["completions"], tree.stats["rollouts"], tree.root.visits) == (6, 1, 1)
    assert words(tree) == ["abcd"]
    solved = grown(best_of_n, 6, Script("abcd", "ab!"))
    assert sorted(words(solved)) == ["ab", "abcd"]
    assert (solved.root.visits, solved.root.value) == (2, 1.0)


def test_equal_beginnings_are_the_same_nodes():
    tree = grown(best_of_n, 7, Script("ab!", "ac.", "abd"))
    assert [node.action for node in tree.root.children] == ["a"]
    assert tree.root.children[0].samples == 3


def test_direct_revision_goes_on_behind_a_signal_until_it_is_solved_then_anew():
    script = Script("abcd", "efgh", "ij!", "abc.", "ab!")
    tree = grown(direct_revision, 15, script)
    assert script.asked == [("", 1, 4), ("abcd~", 1, 4), ("abcd~efgh~", 1, 4), ("", 1, 4), ("", 1, 2)]
    assert sorted(words(tree)) == sorted(["abcd", "abcd~efgh", "abcd~efgh~ij", "abc", "ab"])
    assert tree.stats["completions"] == 15
    assert [path.reward for path in paths(tree) if path.steps[-1].reward] == [1.0, 1.0]
    signals = [node.reply for node in nodes(tree) if node.action == "wait"]
    assert len(signals) == 2
    assert all(parse_reply(reply)[0] in REVISION_THOUGHTS for reply in signals)
    assert len({node.id for node in nodes(tree)}) == tree.stats["nodes"]


def test_a_full_context_or_a_lost_replay_ends_the_episode_and_takes_its_signal_back():
    for broken in ("", None):
        script = Script("abcd", broken, "ef!", "gh")
        tree = grown(direct_revision, 8, script)
        assert [before for before, _, _ in script.asked] == ["", "abcd~", "", ""]
        assert sorted(words(tree)) == ["abcd", "ef"]
        assert tree.stats["nodes"] == len(list(nodes(tree)))
        assert open_end(tree) is None


@pytest.mark.parametrize("strategy", [best_of_n, direct_revision])
def test_where_nothing_fits_the_context_it_ends(strategy):
    tree = grown(strategy, 20, Script(*[""] * 12))
    assert (tree.stats["completions"], tree.status) == (0, "partial")
    assert tree.stats["iterations"] == 2


@pytest.mark.parametrize("strategy", [best_of_n, direct_revision])
def test_a_tree_saved_after_any_wave_goes_on_as_if_it_had_never_stopped(strategy):
    entries = ["abcd", "abcd", "ef!", "abcd", "gh.", "abcd", "abcd", "ij", "ab!", "abcd", "abcd", "abcd"]
    whole = tree_to_dict(grown(strategy, 23, Script(*entries)))
    script = Script(*entries)
    tree = new_tree(TASK)
    for _ in range(whole["stats"]["iterations"]):
        next(strategy(tree, 23, RULES, Random, script))
        tree = tree_from_dict(json.loads(json.dumps(tree_to_dict(tree))))
    assert tree_to_dict(tree) == whole


# -- as a user runs it ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """main() changes what SIGTERM does."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Lab:
    """Stage 1 with the stand-in endpoint, in a folder of its own."""

    def __init__(self, root: Path, chat: ChatServer) -> None:
        self.root, self.chat = root, chat
        self.requests: Counter[str] = Counter()  # of the search, by goal
        self.completions: Counter[str] = Counter()
        self.by_strategy: dict[str, tuple[Counter[str], Counter[str]]] = {}

    def collect(self, *flags: str) -> int:
        return mcts_collection.main([str(flag) for flag in flags])

    def folder(self, name: str) -> Path:
        return self.root / name / "textcraft" / MODEL

    def trees(self, name: str) -> dict[int, Tree]:
        found = [load_tree(read_json(path)) for path in self.folder(name).glob("search_results_*.json")]
        return {tree.task.index: tree for tree in found}

    def asked(self, since: int) -> tuple[Counter[str], Counter[str]]:
        """(requests, completions) by goal, as the endpoint counted them."""
        requests: Counter[str] = Counter()
        completions: Counter[str] = Counter()
        for body in self.chat.requests[since:]:
            match = next(m for turn in body["messages"] if (m := OPENING.search(turn["content"])))
            requests[match["goal"]] += 1
            completions[match["goal"]] += body.get("n", 1)
        return requests, completions


@pytest.fixture(scope="module")
def lab(tmp_path_factory, textcraft_url) -> Iterator[Lab]:
    """A finished search, and both baselines with its calls."""
    root = tmp_path_factory.mktemp("budget")
    with pytest.MonkeyPatch.context() as patch, running_chat(Behaviour()) as chat:
        chat.policy = lambda messages, rng: answer(messages, rng, 0.55)
        environ = {
            **{"TASK": "textcraft", "OPENAI_BASE_URL": chat.base_url, "MODEL_NAME": MODEL},
            **{"ENV_SERVER_BASE": textcraft_url, "ITERA": "4", "N_GEN": "3", "N_ROLLOUT": "3"},
            **{"MAX_DEPTH": "6", "ALPHA": "0.5", "BETA": "0.2", "SEED": "0"},
        }
        for name in ("MODEL_DIR", "MODEL_TYPE", "TEMP", "PROMPT", "CONCURRENCY", "WORKERS", "EXECUTOR"):
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.chdir(root)
        lab = Lab(root, chat)
        assert lab.collect("--task_ids", LISTED, "--output_dir", "mcts") == 0
        lab.requests, lab.completions = lab.asked(0)
        for name in STRATEGIES:
            since = len(chat.requests)
            flags = ("--strategy", name, "--budget_from", str(lab.folder("mcts")), "--output_dir", name)
            assert lab.collect(*flags) == 0
            lab.by_strategy[name] = lab.asked(since)
        yield lab


def goal_of(tree: Tree) -> str:
    match = OPENING.search(tree.task.opening)
    assert match is not None
    return match["goal"]


def test_a_tree_tells_its_requests_and_completions(lab):
    for tree in lab.trees("mcts").values():
        goal = goal_of(tree)
        assert (tree.stats["calls"], tree.stats["completions"]) == (lab.requests[goal], lab.completions[goal])
        assert tree.stats["completions"] > tree.stats["calls"]


def test_a_tree_from_before_they_were_counted_has_as_many(lab, tmp_path):
    for path in lab.folder("mcts").glob("search_results_*.json"):
        data = read_json(path)
        del data["stats"]["completions"], data["settings"]["strategy"]
        (tmp_path / path.name).write_text(json.dumps(data))
    wanted = {index: tree.stats["completions"] for index, tree in lab.trees("mcts").items()}
    kind = read_json(lab.folder("mcts") / "manifest.json")["settings"]["goals"]
    assert spent_by(str(tmp_path), "textcraft", kind) == wanted


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_baseline_spends_what_the_search_spent_on_each_task(lab, name):
    requests, completions = lab.by_strategy[name]
    assert completions == lab.completions
    assert requests == completions
    trees = lab.trees(name)
    assert set(trees) == set(IDS)
    for tree in trees.values():
        spent = lab.completions[goal_of(tree)]
        assert tree.settings["budget"] == tree.stats["completions"] == tree.stats["calls"] == spent
        assert (tree.status, tree.settings["strategy"]) == ("done", name)
    manifest = read_json(lab.folder(name) / "manifest.json")
    assert manifest["settings"]["strategy"] == name
    assert manifest["settings"]["budget"] == manifest["tokens"]["completions"] == sum(completions.values())
    assert manifest["settings"]["budget_from"] == str(lab.folder("mcts"))
    assert manifest["counts"]["rollouts"] == sum(tree.root.visits for tree in trees.values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_its_paths_replay_as_recorded(lab, name, textcraft_url):
    count = 0
    with closing(make_environment("textcraft", textcraft_url)) as env:
        for tree in lab.trees(name).values():
            for path in paths(tree):
                _, steps = replay(env, tree.task.index, [step.reply for step in path.steps])
                assert [(s.observation, s.reward, s.done) for s in steps] == [
                    (s.observation, s.reward, s.done) for s in path.steps
                ]
                count += 1
    assert count == sum(len(leaves(tree)) for tree in lab.trees(name).values()) > 10


@pytest.mark.parametrize("name", STRATEGIES)
def test_stage_2_pairs_its_paths(lab, name, tmp_path, capsys):
    flags = ["--input_dir", str(lab.folder(name)), "--output_dir", str(tmp_path), "--revise", "0"]
    assert path_collection.main([*flags, "--drop_unjudged", "0"]) == 0
    rows = (tmp_path / "textcraft_centric.jsonl").read_text().splitlines()
    assert len(rows) > 3
    assert path_collection.main(["--verify", str(tmp_path / "textcraft_centric.jsonl")]) == 0
    capsys.readouterr()


def test_direct_revision_shows_the_actor_what_failed(lab):
    trees = lab.trees("direct_revision").values()
    signals = [node for tree in trees for node in nodes(tree) if node.action == "wait"]
    assert signals
    for node in signals:
        assert (node.obs, node.parent.is_terminal, node.parent.reward) == ("ok.", True, 0.0)
        assert node.depth % 7 == 0  # MAX_DEPTH steps before each
    sent = {turn["content"] for body in lab.chat.requests for turn in body["messages"]}
    assert {node.reply for node in signals if node.children} <= sent


def test_run_again_it_asks_nothing_and_changes_nothing(lab, capsys):
    for name in STRATEGIES:
        before = {path: path.read_bytes() for path in lab.folder(name).iterdir()}
        asked = len(lab.chat.requests)
        flags = ("--strategy", name, "--budget_from", str(lab.folder("mcts")), "--output_dir", name)
        assert lab.collect(*flags) == 0
        assert capsys.readouterr().out.startswith("4 trees (0 failed), ")
        assert len(lab.chat.requests) == asked
        assert {path: path.read_bytes() for path in lab.folder(name).iterdir()} == before


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_was_stopped_goes_on_and_pays_for_no_completion_twice(name, tmp_path, textcraft_url):
    settings = settings_from_env(
        {"MODEL_NAME": "noisy", "N_ROLLOUT": "2", "MAX_DEPTH": "5", "PROMPT": "brief"}
    )
    environment = partial(make_environment, "textcraft", textcraft_url)

    def collection(folder: Path) -> SearchStage:
        return SearchStage(settings, [240], folder, baseline=Baseline(name, {240: 60}))

    calls = Counter()

    def counted(kind: str, limit: int):
        def before() -> None:
            calls[kind] += 1
            if calls[kind] > limit:
                raise ActorError("the endpoint is gone")

        return lambda: NoisyPlayer(0.8, before)

    collection(tmp_path / "whole").run(counted("whole", 60), environment)
    assert collection(tmp_path / "cut").run(counted("cut", 31), environment)["failed"] == 1
    kept = load_tree(read_json(collection(tmp_path / "cut").path(240)))
    assert (kept.status, calls["whole"]) == ("failed", 60)
    assert 31 - kept.stats["completions"] in range(1, 2 * 5 + 1)
    collection(tmp_path / "cut").run(counted("again", 60), environment)
    assert calls["again"] == 60 - 31
    one, two = (collection(tmp_path / part).path(240).read_bytes() for part in ("whole", "cut"))
    assert one == two


def test_a_worker_process_gets_the_budgets(tmp_path):
    settings = settings_from_env({"MODEL_NAME": "m"})
    stage = SearchStage(settings, [3], tmp_path, baseline=Baseline("best_of_n", {3: 7}, "there"))
    made = pickle.loads(pickle.dumps(stage.remote_factory()))(tmp_path / "worker")
    assert made.strategy == stage.strategy


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--strategy", "beam", "--budget", "9"), "direct_revision, live: 'beam'"),
        (("--budget", "9"), "--budget is for --strategy best_of_n or direct_revision"),
        (("--strategy", "best_of_n"), "needs --budget or --budget_from"),
        (("--strategy", "best_of_n", "--budget", "9", "--budget_from", "mcts"), "not both"),
        (("--strategy", "best_of_n", "--budget", "0"), "--budget must be between 1 and 1000000: 0"),
        (("--strategy", "best_of_n", "--budget", "few"), "'few'"),
        (("--strategy", "best_of_n", "--budget_from", "nowhere"), "--budget_from is not a folder: 'nowhere'"),
        (("--strategy", "best_of_n", "--budget_from", "HERE", "--task_ids", "119"), "no tree of index 119"),
        (("--strategy", "best_of_n", "--budget", "9", "--output_dir", "mcts"), "STRATEGY='mcts', now 'best_of_n'"),
        (("--task_ids", "119", "--output_dir", "best_of_n"), "STRATEGY='best_of_n', now 'mcts'"),
        (
            ("--strategy", "best_of_n", "--budget", "9", "--task_ids", LISTED, "--output_dir", "best_of_n"),
            "now 9: use another --output_dir",
        ),
    ],
)  # fmt: skip
def test_flags_that_are_wrong_are_one_line(lab, capsys, flags, named):
    assert 119 not in IDS
    asked = len(lab.chat.requests)
    code = lab.collect(*(str(lab.folder("mcts")) if flag == "HERE" else flag for flag in flags))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mcts_collection.py: ")
    assert named in err
    assert len(lab.chat.requests) == asked


# -- side by side --------------------------------------------------------------------------------------------------


def test_the_report_of_real_trees(lab, tmp_path, capsys):
    folders = [str(lab.folder(name)) for name in ("mcts", *STRATEGIES)]
    assert report.main([*folders, "--output", str(tmp_path / "budget.json")]) == 0
    out, _ = capsys.readouterr()
    found = read_json(tmp_path / "budget.json")
    assert list(found["strategies"]) == ["mcts", *STRATEGIES]
    total = sum(lab.completions.values())
    for name, one in found["strategies"].items():
        trees = lab.trees(name).values()
        assert (one["tasks"], one["completions"]) == (4, total)
        assert one["calls"] == (sum(lab.requests.values()) if name == "mcts" else total)
        assert one["solved_tasks"] == sum(any(leaf.reward == 1 for leaf in leaves(tree)) for tree in trees)
        assert one["pairs"] >= one["tasks_with_pairs"] > 0
    for one in found["differences"].values():
        assert one["completions"] == {"equal_tasks": 4, "largest_gap": 0}
    assert f"{total:,}" in out
    assert "completions: equal in 4 tasks, at most 0 apart" in out


def written(folder: Path, strategy: str, ends: Sequence[Sequence[str]], **settings: float) -> str:
    """A folder of trees: task i holds the rollouts of ends[i], words as in Script."""
    folder.mkdir()
    for index, rollouts in enumerate(ends):
        tree = new_tree(
            Task("textcraft", index, f"goal {index}", "Goal."), {"strategy": strategy, **settings}
        )
        grown(best_of_n, sum(len(word.rstrip("!.")) for word in rollouts), Script(*rollouts), tree)
        tree.status = "done"
        (folder / f"search_results_{index}.json").write_text(json.dumps(tree_to_dict(tree)))
    return str(folder)


def test_the_report_by_hand(tmp_path, capsys):
    """Task 0: two solved sequences that each fork from both failures; task 1: solved by one of the two only."""
    one = written(tmp_path / "one", "mcts", [["ab!", "acd!", "axx.", "ay."], ["b."], ["c."]], temp=1.0)
    two = written(tmp_path / "two", "best_of_n", [["ab!"], ["b!", "a."], ["cd!"]], temp=0.5)
    assert report.main([one, two, "--output", str(tmp_path / "out.json")]) == 0
    found = read_json(tmp_path / "out.json")
    first, second = found["strategies"].values()
    assert (first["completions"], second["completions"]) == (12, 6)
    assert (first["solved_tasks"], first["solved_paths"], first["pairs"], first["tasks_with_pairs"]) == (
        1,
        2,
        4,
        1,
    )
    assert (second["solved_tasks"], second["solved_paths"], second["pairs"]) == (3, 3, 1)
    assert first["solved_share"] == pytest.approx(1 / 3)
    assert first["solved_ci95"] == pytest.approx([0.0615, 0.7923], abs=1e-3)  # Wilson's, 1 of 3
    assert first["steps_per_solved_path"] == pytest.approx(2.5)
    change = found["differences"]["best_of_n"]
    assert (change["gained"], change["lost"], change["mcnemar_p"]) == (2, 0, 0.5)
    assert change["solved"]["difference"] == pytest.approx(2 / 3)
    assert change["pairs"]["difference"] == pytest.approx((-4 + 1 + 0) / 3)
    assert change["completions"] == {"equal_tasks": 0, "largest_gap": 8}
    assert found["settings_that_differ"] == {"temp": [1.0, 0.5]}
    assert "not the same everywhere: TEMP: mcts 1.0, best_of_n 0.5" in capsys.readouterr().out


def test_the_report_refuses_what_cannot_be_compared(tmp_path, capsys):
    one = written(tmp_path / "one", "mcts", [["ab!"], ["a."]])
    few = written(tmp_path / "few", "best_of_n", [["ab!"]])
    mixed = written(tmp_path / "mixed", "mcts", [["ab!"], ["a."]])
    part = written(tmp_path / "part", "mcts", [["ab!"], ["a."]])
    for folder, name, old, new in (
        (mixed, "search_results_1.json", '"mcts"', '"best_of_n"'),
        (part, "search_results_1.json", '"done"', '"failed"'),
    ):
        path = Path(folder, name)
        path.write_text(path.read_text().replace(old, new, 1))
    for flags, named in (
        ([one, few], "differ in 1 tasks, such as textcraft 1 goal 1"),
        ([mixed], "STRATEGY='best_of_n', not 'mcts'"),
        ([part], "search_results_1.json is failed"),
        ([str(tmp_path)], "no search_results_<idx>.json"),
        ([one, "--alpha", "2"], "--alpha must be between 0 and 1: 2"),
    ):
        assert report.main(flags) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert named in err

"""Is the judge right: the oracles on hand-made trees, the numbers, the drawing, and the command over files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_utils.config import settings_from_env
from mcts_utils.executors import threads
from mcts_utils.report.judge import agreement
from mcts_utils.report.judge.__main__ import TreeFolder, main, sampled_verdicts
from mcts_utils.report.judge.agreement import (
    CUT_KINDS,
    TRUTHS,
    VERDICTS,
    JudgedPath,
    JudgedStep,
    ValuedStep,
    cut_scores,
    kappa,
    mean,
    roc_area,
    step_scores,
)
from mcts_utils.report.judge.evidence import judged_paths, judged_steps, on_good_paths
from mcts_utils.report.judge.oracles import Truth, ValueRule, planner_truths, truth_of_plans, value_truths
from mcts_utils.report.judge.sampling import VerdictSampler, draw_steps, question_about
from mcts_utils.revision.verdict_cache import VerdictCache, question_sha256
from mcts_utils.search.tree import Tree, backup, new_tree, nodes, path_nodes
from mcts_utils.search.tree_io import tree_to_dict
from mcts_utils.servers.textcraft.planner import Planner
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.types import ActorError, Message, Task, Verdict
from tests.helpers.hand_trees import (
    BUTTON,
    CRAFT,
    DOOR,
    PLANKS,
    SHORT,
    STEM,
    SURPLUS,
    Scripted,
    replies,
    strict_judge,
)

LOOK = "inventory"


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """What is tested here does not hang on how fine an interval is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "RESAMPLES", 99)
        yield


def door(*paths: Sequence[str], index: int = DOOR) -> Tree:
    """A tree of these plays, executed in process; equal beginnings share their nodes."""
    world = load_world()
    goal = world.goals[index]
    tree = new_tree(Task("textcraft", index, f"textcraft:{index}", world.opening(goal)), prompt="brief")
    tree.status = "done"
    for actions in paths:
        game, node = Session(world, goal), tree.root
        for reply, action in zip(replies(actions), actions, strict=True):
            obs, reward, done = game.step(action)
            same = next((c for c in node.children if c.action == action), None)
            node = same or tree.add(node, reply, action)
            node.obs, node.reward, node.done, node.executed = obs, float(reward), done, True
        node.is_terminal = True
        backup(node, node.reward)
    return tree


def labels(tree: Tree) -> list[str]:
    """What the planner says, along the tree's only path."""
    found = planner_truths(tree)
    return [found[node.id].reason for node in nodes(tree) if node.id in found]


def test_the_planner_tells_every_sort_of_step():
    assert labels(door(SHORT)) == ["nearer"] * 4
    slips = [CRAFT, LOOK, SURPLUS, "get 1 crimson stem", STEM, PLANKS, BUTTON, PLANKS, CRAFT]
    assert labels(door(slips)) == [
        "refused",
        "look",
        "no change: not needed",
        "no change: too few",
        *("nearer", "nearer", "no change: not needed", "nearer", "nearer"),
    ]
    # Eight planks, six needed: the third button leaves five.
    wasted = [STEM, PLANKS, PLANKS, BUTTON, BUTTON, BUTTON]
    assert labels(door(wasted))[3:] == ["no change: not needed", "no change: not needed", "farther"]


def test_the_planner_says_nothing_where_the_world_is_another():
    tree = door(SHORT)
    node = tree.root.children[0].children[0]
    node.obs = "Crafted 9 minecraft:crimson_planks"
    assert list(planner_truths(tree)) == [tree.root.children[0].id]  # the step before it
    tree = door(SHORT)
    tree.task = Task(
        "textcraft", 0, "textcraft:0", "Crafting commands:\ncraft 1 a using 1 b\n\nGoal: craft a."
    )
    assert planner_truths(tree) == {}


def test_a_plan_that_is_lost_or_found():
    plan = ("stick", "bow")
    assert truth_of_plans(None, None, set()) is None
    assert truth_of_plans(plan, None, set()) == Truth("bad", "no plan")
    assert truth_of_plans(None, plan, set()) == Truth("good", "nearer")


@settings(max_examples=40)
@given(st.integers(0, 400), st.randoms(use_true_random=False))
def test_the_planners_own_steps_are_good_after_any_slips(index: int, rng: random.Random):
    world = load_world()
    goal = world.goals[index]
    planner, game = Planner(world, goal, world.commands(goal)), Session(world, goal)
    slips = [SURPLUS, LOOK, "dance", "get 1 stick", planner.plan({})[0].command]
    actions = [rng.choice(slips) for _ in range(rng.randrange(4))]
    done = False
    for action in actions:
        done = game.step(action)[2] or done
    own = len(actions)
    while not done and len(actions) < 40:
        actions.append(planner.plan(game.inventory)[0].command)
        done = game.step(actions[-1])[2]
    tree = door(actions, index=index)
    found = planner_truths(tree)
    along = [found[node.id].label for node in nodes(tree) if node.parent]
    assert len(along) == len(actions)
    assert set(along[own:]) <= {"good"}


def valued() -> Tree:
    """root -> a (Q 0.75 of 4) -> b (0.5 of 2), c (1 of 2); b -> d (0 of 1)."""
    tree = new_tree(Task("webshop", 0, "webshop:0", "find"))
    for name, parent, visits, value in (
        ("a", 0, 4, 3.0),
        ("b", 1, 2, 1.0),
        ("c", 1, 2, 2.0),
        ("d", 2, 1, 0.0),
    ):
        by_id = {node.id: node for node in nodes(tree)}
        node = tree.add(by_id[parent], name, name)
        node.visits, node.value, node.executed, node.obs = visits, value, True, "ok"
    tree.root.visits, tree.root.value = 4, 3.0
    return tree


def test_the_searchs_values():
    def said(rule: ValueRule) -> dict[int, str]:
        return {node: truth.label for node, truth in value_truths(valued(), rule).items()}

    assert said(ValueRule()) == {1: "neutral", 2: "bad", 3: "good"}
    assert said(ValueRule(min_visits=1)) == {1: "neutral", 2: "bad", 3: "good", 4: "bad"}
    assert said(ValueRule("threshold", 0.6, 1)) == {1: "good", 2: "bad", 3: "good", 4: "bad"}
    assert said(ValueRule("threshold", 0.5, 2)) == {1: "good", 2: "good", 3: "good"}


GROUPS = st.sampled_from("abcd")
ITEMS = st.lists(
    st.builds(
        JudgedStep, GROUPS, st.sampled_from(VERDICTS), st.sampled_from(TRUTHS), st.just("r"), st.booleans()
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25)
@given(ITEMS, st.randoms(use_true_random=False))
def test_the_shares_are_those_of_the_table(items: list[JudgedStep], rng: random.Random):
    found = step_scores(items)
    table = found["confusion"]
    assert sum(sum(row.values()) for row in table.values()) == found["n"] == len(items)
    truly = sum(row["bad"] for row in table.values())
    assert (found["truly_bad"]["hits"], found["recall"]["n"]) == (truly, truly)
    assert found["precision"]["hits"] == found["recall"]["hits"] == table["bad"]["bad"]
    assert found["precision"]["n"] == sum(table["bad"].values())
    assert found["false_alarms"]["hits"] == table["bad"]["good"]
    assert found["false_alarms_good_prefix"]["n"] <= found["false_alarms"]["n"]
    same = (("good", "good"), ("bad", "bad"), ("uncertain", "neutral"), ("unparsed", "neutral"))
    agreed = sum(table[verdict][truth] for verdict, truth in same)
    assert found["agreement"]["hits"] == agreed
    for share in (found["precision"], found["recall"], found["agreement"], *found["calibration"].values()):
        for interval in (share["ci95"], share["ci95_wilson"]):
            if interval:
                low, high = interval
                assert -1e-9 <= low <= share["share"] + 1e-9 and share["share"] <= high + 1e-9 <= 1 + 1e-6
        assert (share["share"] is None) == (share["n"] == 0)
    shuffled = rng.sample(items, len(items))
    assert step_scores(shuffled)["confusion"] == table
    assert step_scores(shuffled)["kappa"]["kappa"] == pytest.approx(found["kappa"]["kappa"])


def test_kappa_of_a_judge_who_is_right_and_of_one_who_always_says_the_same():
    right = [JudgedStep(g, v, t, "", True) for g in "ab" for v, t in (("bad", "bad"), ("good", "good"))]
    assert kappa(right)["kappa"] == pytest.approx(1)
    always = [JudgedStep(g, "bad", t, "", True) for g in "ab" for t in ("bad", "good")]
    assert kappa(always)["kappa"] == pytest.approx(0)
    assert kappa([JudgedStep("a", "bad", "bad", "", True)])["kappa"] is None


SCORES = st.lists(
    st.builds(ValuedStep, GROUPS, st.sampled_from(VERDICTS), st.integers(0, 4).map(float)),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25)
@given(SCORES)
def test_the_area_counts_pairs(scored: list[ValuedStep]):
    found = roc_area(scored)
    pairs = [
        (a.value < b.value) + (a.value == b.value) / 2
        for a in scored
        for b in scored
        if a.verdict == "bad" and b.verdict != "bad"
    ]
    if not pairs:
        assert found["area"] is None
        return
    assert found["area"] == pytest.approx(sum(pairs) / len(pairs))
    stretched = [ValuedStep(s.group, s.verdict, s.value**3 + 1) for s in scored]
    assert roc_area(stretched)["area"] == pytest.approx(found["area"])
    turned = [ValuedStep(s.group, s.verdict, -s.value) for s in scored]
    assert roc_area(turned)["area"] == pytest.approx(1 - found["area"])


def test_the_areas_interval_is_about_tasks():
    even = [ValuedStep(str(i), "bad" if i % 2 else "good", float(i % 7)) for i in range(200)]
    found = roc_area(even)
    low, high = found["ci95"]
    assert low < found["area"] < high and 0.05 < high - low < 0.25
    # The same verdicts ten times over are ten times as many, and no more certain: they are of the same tasks.
    assert roc_area(even * 10)["ci95"] == pytest.approx([low, high])
    assert (
        mean([("a", 1.0), ("b", 0.0), ("c", 1.0)] * 50)["ci95"]
        == mean([("a", 1.0), ("b", 0.0), ("c", 1.0)])["ci95"]
    )
    assert mean([("a", 1.0), ("a", 0.0)])["ci95"] is None


@settings(max_examples=25)
@given(
    st.lists(
        st.builds(JudgedPath, GROUPS, st.none() | st.integers(0, 5), st.none() | st.integers(0, 5)),
        max_size=20,
    )
)
def test_every_path_is_cut_in_one_way(paths: list[JudgedPath]):
    found = cut_scores(paths)
    assert sum(found[kind]["hits"] for kind in CUT_KINDS) == found["n"] == len(paths)
    gaps = [p.cut - p.error for p in paths if p.cut is not None and p.error is not None]
    assert found["distance"]["n"] == len(gaps)
    if gaps:
        assert found["distance"]["mean"] == pytest.approx(sum(gaps) / len(gaps))
        assert found["early"]["hits"] == sum(gap < 0 for gap in gaps)
        assert found["late"]["hits"] == sum(gap > 0 for gap in gaps)


def test_a_good_prefix_ends_at_the_first_error():
    tree = door([STEM, CRAFT, PLANKS, PLANKS])
    items = judged_steps(tree, {node.id: "bad" for node in nodes(tree) if node.parent}, planner_truths(tree))
    assert [(item.truth, item.clean) for item in items] == [
        ("good", True),
        ("bad", True),
        ("good", False),
        ("good", False),
    ]


def test_where_a_path_is_cut():
    bad = [STEM, CRAFT, PLANKS, "dance"]
    tree = door(bad, SHORT)
    truths = planner_truths(tree)

    leaf = next(node for node in nodes(tree) if node.action == "dance")
    path = [node.id for node in path_nodes(leaf)[1:]]

    def cut(*said: str | None) -> tuple[int | None, int | None] | str:
        verdicts = {node: label for node, label in zip(path, said, strict=False) if label}
        found, unfinished = judged_paths(tree, verdicts, truths)
        return "unfinished" if unfinished else (found[0].cut, found[0].error)

    assert cut("good", "bad") == (1, 1)  # exact
    assert cut("bad") == (0, 1)  # early
    assert cut("good", "good", "good", "bad") == (3, 1)  # late
    assert cut("good", "uncertain", "good", "good") == (None, 1)  # missed
    assert cut(None, None, "bad") == (2, 3)  # judged from step 2 on: what lies before is not its error
    assert cut("good") == "unfinished"
    assert judged_paths(tree, {}, truths) == ([], 0)


def write_trees(folder: Path) -> Path:
    """Four trees on disk, each with a good and two bad paths."""
    bad = [[CRAFT, LOOK, SURPLUS], [STEM, BUTTON, SURPLUS]]
    for index in (DOOR, DOOR + 1, 3, 250):
        world = load_world()
        goal = world.goals[index]
        plan = [a.command for a in Planner(world, goal, world.commands(goal)).plan({})]
        tree = door(plan, *bad, index=index)
        write_json(folder / f"search_results_{index}.json", tree_to_dict(tree))
    return folder


def keep_verdicts(trees: Path, folder: Path) -> int:
    """A strict judge's verdicts on bad paths, as stage 2 keeps them; returns how many there are."""
    count = 0
    for key, tree in TreeFolder([trees], "textcraft").trees():
        cache = VerdictCache(folder / "verdicts" / f"verdicts_{key[1]}.json", "m", "brief")
        good = on_good_paths(tree)
        for node in nodes(tree):
            if node.parent and node.id not in good:
                refused = node.obs.startswith("Could not")
                question = question_sha256(question_about(tree, node, "brief"))
                cache.put(node.id, question, Verdict("bad" if refused else "good", "r", 1, True))
                count += 1
        cache.save()
    return count


def test_the_command_reads_what_stage_2_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trees, output = write_trees(tmp_path / "trees"), tmp_path / "judge.json"
    count = keep_verdicts(trees, tmp_path / "records")
    path = next((tmp_path / "records" / "verdicts").iterdir())
    data = read_json(path)
    first = next(iter(data["verdicts"].values()))
    first["question"] = "0" * 16  # asked about another step
    last = list(data["verdicts"].values())[-1]
    last["label"], last["parsed"] = "uncertain", False
    write_json(path, data)
    args = ["--trees", str(trees), "--verdicts", str(tmp_path / "records"), "--output", str(output)]
    assert main(args) == 0
    found = read_json(output)["stage_2"]
    assert (found["trees"], found["other_questions"]) == (4, 1)
    assert found["verdicts"]["in_all"] == count - 1
    assert found["verdicts"]["unparsed"] == 1
    steps = found["planner"]["steps"]
    assert steps["precision"]["share"] == 1
    assert steps["recall_by_reason"]["refused"]["share"] > 0.5
    assert steps["recall_by_reason"]["no change: not needed"]["share"] == 0
    assert sum(steps["confusion"]["unparsed"].values()) == 1
    text = capsys.readouterr().out
    assert "precision of 'bad'" in text and "no planner" not in text


def test_other_environments_have_no_planner(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_json(tmp_path / "trees" / "search_results_0.json", tree_to_dict(valued()))
    cache = VerdictCache(tmp_path / "verdicts" / "verdicts_0.json", "m", "full")
    for node in list(nodes(valued()))[1:]:
        question = question_sha256(question_about(valued(), node, "full"))
        cache.put(node.id, question, Verdict("bad" if node.action == "b" else "good", "r", 1, True))
    cache.save()
    output = tmp_path / "out.json"
    args = [
        "--trees",
        str(tmp_path / "trees"),
        "--verdicts",
        str(tmp_path / "verdicts"),
        "--output",
        str(output),
    ]
    assert main(args) == 0
    assert "no planner for this environment" in capsys.readouterr().out
    found = read_json(output)["stage_2"]
    assert found["planner"] is None
    assert found["value"]["steps"]["n"] == 3
    assert found["value"]["steps"]["precision"]["share"] == 1
    assert found["value"]["q_by_verdict"]["bad"]["mean"] == 0.5
    assert found["value"]["area_q"]["area"] == 1


def test_the_drawing_is_halved_nested_and_repeatable(tmp_path: Path):
    trees = TreeFolder([write_trees(tmp_path)], "textcraft")
    passed = {key: on_good_paths(tree) for key, tree in trees.trees()}

    def drawn(count: int, seed: int) -> set[tuple[int, int]]:
        chosen, counts = draw_steps(trees.trees(), count, seed)
        found = {(key[1], node) for key, ids in chosen.items() for node in ids}
        good = sum(node in passed[key] for key, ids in chosen.items() for node in ids)
        assert (good, len(found) - good) == (counts["on_good_paths"], counts["on_bad_paths_only"])
        return found

    assert len(drawn(8, 0)) == 8 and draw_steps(trees.trees(), 8, 0)[1]["on_good_paths"] == 4
    assert drawn(6, 0) < drawn(8, 0) == drawn(8, 0) != drawn(8, 1)
    everything = drawn(1000, 0)
    assert len(everything) == sum(1 for _, tree in trees.trees() for node in nodes(tree) if node.parent)


@pytest.mark.parametrize("failures_first", [False, True])
def test_verdicts_on_purpose_are_kept(tmp_path: Path, monkeypatch, failures_first):
    """Also where a failure is noticed before the answers that came earlier."""

    def ordered(futures):
        wait(futures)
        return sorted(futures, key=lambda future: future.exception() is None)

    if failures_first:
        monkeypatch.setattr(threads, "as_completed", ordered)
    trees = TreeFolder([write_trees(tmp_path / "trees")], "textcraft")
    told = settings_from_env({"MODEL_NAME": "m", "PROMPT": "brief", "CONCURRENCY": "2"})
    numbers = count(1)

    def dying(messages: Sequence[Message], temperature: float, seed: int | None) -> str:
        if next(numbers) > 5:
            raise ActorError("gone")
        return strict_judge(messages, temperature, seed)

    with pytest.raises(ActorError):
        sampled_verdicts(
            trees, VerdictSampler(told, tmp_path / "asked", lambda _: Scripted(dying)), 12, ValueRule(), 0
        )
    actor = Scripted(strict_judge)
    again = VerdictSampler(told, tmp_path / "asked", lambda _: actor)
    found = sampled_verdicts(trees, again, 12, ValueRule(), 0)
    assert 12 - 5 <= len(actor.asked) < 12
    assert found["requests"] == len(actor.asked)
    assert found["verdicts"]["in_all"] == 12
    assert found["on_good_paths"]["verdicts"]["in_all"] == 6
    assert found["on_good_paths"]["planner"]["steps"]["false_alarms"]["hits"] == 0
    assert found["planner"]["steps"]["recall_by_reason"].get("refused", {"share": 1})["share"] == 1

    def nobody(_: object) -> Scripted:
        raise AssertionError("everything is known")

    third = sampled_verdicts(trees, VerdictSampler(told, tmp_path / "asked", nobody), 12, ValueRule(), 0)
    assert {**third, "requests": 0} == {**found, "requests": 0}
    json.dumps(third, allow_nan=False)


def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("MODEL_DIR", "MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    trees = write_trees(tmp_path / "trees")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "search_results_1.json").write_text('{"format"')
    (tmp_path / "none" / "verdicts").mkdir(parents=True)
    (tmp_path / "none" / "verdicts" / f"search_results_{DOOR}.json").write_text(
        '{"prompt": "brief", "verdicts": {}}'
    )
    for args, named in (
        ([], "neither --verdicts nor --judge"),
        (["--verdicts", "nowhere"], "nowhere"),
        (["--verdicts", "none", "none"], "2 folders"),
        (["--verdicts", "none"], "none"),
        (["--verdicts", "half"], "half"),
        (["--judge", "10"], "--asked or --output"),
        (["--judge", "10", "--asked", "x"], "neither MODEL_DIR nor OPENAI_BASE_URL is set"),
        (["--judge", "-1", "--asked", "x"], "-1"),
        (["--verdicts", "none", "--threshold", "2"], "between 0 and 1: 2"),
        (["--verdicts", "none", "--min_visits", "0"], "--min_visits"),
    ):
        assert main(["--trees", str(trees), *args]) == 2, args
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and named in captured.err, args
    assert main(["--trees", "half", "--verdicts", "none"]) == 2

"""`--dry-run` of each stage: it says what would be done and cost, asks no model and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.servers.mock_llm.endpoint import MODEL
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.training import train
from tests.executors.test_spending import Bill, bill, search  # noqa: F401
from tests.helpers.training_models import tiny_model, write_records

FOLDER = Path("mcts_result/textcraft", MODEL)
REVISE = ["--input_dir", str(FOLDER), "--output_dir", "records"]
PLAY = ["--max_steps", "10", "--task_ids"]


def files() -> set[Path]:
    return set(Path().rglob("*"))


def said(run: Callable[[], int], capsys: pytest.CaptureFixture[str], bill: Bill) -> str:  # noqa: F811
    """What a dry run printed; it has cost nothing and written nothing."""
    before = bill.tokens, files()
    assert run() == 0
    assert (bill.tokens, files()) == before
    return capsys.readouterr().out


def test_stages_say_what_they_would_do_and_cost(
    bill: Bill,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKEN_PRICE", "1 10")
    monkeypatch.setenv("MAX_COST", "50")
    text = said(lambda: search("--dry-run"), capsys, bill)
    assert "mcts on textcraft: 3 trees, 0 done, 3 left; asked: textcraft-expert (http://127.0.0.1:" in text
    # an iteration: one request for 4 candidates, two rollouts of ten steps
    assert "at most: 126 requests, 36.9k completion tokens, $0.369, and the prompts" in text
    assert (
        "likely: said once trees are finished here" in text and "limits: MAX_COST=50; the stage ends" in text
    )
    assert search() == 0
    spent = read_json(FOLDER / "spent.json")["models"]["actor"]
    assert spent["calls"] <= 126 and spent["completion_tokens"] <= 36_900
    capsys.readouterr()
    more = ["--task_ids", "183,187,190,194,195,196", "--dry-run"]
    text = said(lambda: mcts_collection.main(more), capsys, bill)
    assert "6 trees, 3 done, 3 left" in text and f"likely: {spent['calls']:,} requests" in text
    assert ", as the 3 finished trees took" in text and f"paid so far: actor: {spent['calls']} calls" in text

    text = said(lambda: path_collection.main([*REVISE, "--dry-run"]), capsys, bill)
    bound = int(text.partition(" steps of bad paths have no verdict yet")[0].rpartition("\n")[2])
    assert (
        "centric records of textcraft: 3 trees, 0 done, 3 left" in text
        and f"likely: {bound} requests" in text
    )
    assert path_collection.main(REVISE) == 0
    counts = read_json(Path("records/textcraft_centric.manifest.json"))["counts"]["verdicts"]
    assert counts["requests"] <= 4 * bound and counts["good"] + counts["bad"] + counts["uncertain"] <= bound
    capsys.readouterr()
    if counts["unparsed"] == 0:
        text = said(lambda: path_collection.main([*REVISE, "--dry-run"]), capsys, bill)
        assert "3 trees, 3 done, 0 left" in text
    good = [*REVISE, "--data_type", "good", "--dry-run"]
    text = said(lambda: path_collection.main(good), capsys, bill)
    assert "asked: no model" in text and "no model judges; at most 2,000 replays of each tree" in text

    text = said(lambda: evaluation.main([*PLAY, "0-3", "--dry-run"]), capsys, bill)
    assert "mode main on textcraft: 4 episodes, 0 done, 4 left" in text and "at most: 40 requests" in text
    assert evaluation.main([*PLAY, "0-3"]) == 0
    capsys.readouterr()
    text = said(lambda: evaluation.main([*PLAY, "0-7", "--dry-run"]), capsys, bill)
    assert "8 episodes, 4 done, 4 left" in text and ", as the 4 finished episodes took" in text

    assert evaluation.main(["--max_steps", "3", "--task_ids", "0-3", "--output_dir", "short"]) == 0
    (run,) = Path("short/textcraft").iterdir()
    capsys.readouterr()
    cut = ["--mode", "revise", "--from", str(run), "--panel", "panel.json", "--dry-run"]
    text = said(lambda: evaluation.main(cut), capsys, bill)
    assert "mode revise on textcraft: " in text


def test_what_a_dry_run_cannot_say_is_one_line(bill: Bill, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    for flags in (["--data_type", "expert"], ["--verify", "x"], ["--input_dir", ".", "--rejudge"]):
        assert path_collection.main([*flags, "--dry-run"]) == 2
        assert "--dry-run goes with the data types that are made of trees" in capsys.readouterr().err


@pytest.mark.trainer
def test_a_training_says_its_rows_tokens_and_iterations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = tiny_model(tmp_path / "model"), write_records(tmp_path / "rows.jsonl")
    write_json(model / "manifest.json", {"stage": "train", "settings": {"epochs": 1}, "seconds": 7200.0,
               "tokens": {"good": {"input": 1, "trained": 1}}})  # fmt: skip
    before = set(tmp_path.rglob("*"))
    given = ["--data", data, "--model_dir", model, "--output_dir", tmp_path / "out", "--dry-run"]
    assert train.main([*map(str, given)]) == 0
    text = capsys.readouterr().out
    assert set(tmp_path.rglob("*")) == before
    assert (
        text.startswith("train.py: dry run: nothing is written or trained\n")
        and " of them with loss\n" in text
    )
    assert "config tiny_actor: 3 epochs, " in text and " h, at the speed of the training of" in text

"""Prices, and the limits MAX_TOKENS_TOTAL, MAX_COST and MAX_HOURS: a stage ends before it passes them, and goes on."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils import patience
from mcts_utils.config import settings_from_env
from mcts_utils.executors.ledger import WAIT, Ledger, LedgerPlan, Limits
from mcts_utils.executors.prices import Price, Prices, read_prices
from mcts_utils.executors.spending import MeteredActor, Spending
from mcts_utils.report.judge.__main__ import main as judge_report
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, ChatServer, running_chat
from mcts_utils.storage.files import read_json
from mcts_utils.storage.formats.spent import Paid
from mcts_utils.types import BudgetReached, InputError, Message, Sample
from tests.helpers.scripted_actor import ScriptedActor

IDS = "183,187,190"
ASK = [Message("user", "x" * 400)]


class Bill:
    """What an endpoint counts itself."""

    def __init__(self, server: ChatServer) -> None:
        self.tokens = 0
        self._complete, self._lock = server.complete, Lock()
        server.complete = self.complete  # type: ignore[method-assign]

    def complete(self, body: dict[str, Any]) -> Any:
        answer = self._complete(body)
        if len(body["messages"]) > 1:  # no first contact with a model that is not listed
            with self._lock:
                self.tokens += answer["usage"]["total_tokens"]
        return answer


@pytest.fixture
def bill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, textcraft_url: str) -> Iterator[Bill]:
    """A mock endpoint with its own count; the settings name it and a bundled server."""
    earlier = signal.getsignal(signal.SIGTERM)
    with running_chat(Behaviour(noise=0.4)) as server:
        monkeypatch.chdir(tmp_path)
        made = {"OPENAI_BASE_URL": server.base_url, "ENV_SERVER_BASE": textcraft_url, "MODEL_NAME": MODEL}
        made |= {"TASK": "textcraft", "ITERA": "2", "N_ROLLOUT": "2", "MAX_DEPTH": "10", "WORKERS": "2"}
        for name, value in made.items():
            monkeypatch.setenv(name, value)
        yield Bill(server)
    signal.signal(signal.SIGTERM, earlier)


def search(*flags: str) -> int:
    return mcts_collection.main(["--task_ids", IDS, *flags])


def trees(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*/search_results_*.json")}


def test_a_search_ends_before_it_passes_a_limit_and_goes_on_with_a_larger_one(
    bill, monkeypatch, tmp_path, capsys
):
    assert search("--output_dir", "whole") == 0
    whole, bill.tokens = bill.tokens, 0
    undisturbed = trees(tmp_path / "whole")
    capsys.readouterr()
    paid, codes = 0, []
    for limit in (3 * whole // 10, 3 * whole // 5, 3 * whole):
        monkeypatch.setenv("MAX_TOKENS_TOTAL", str(limit))
        codes.append(search())
        line = capsys.readouterr().err.splitlines()[-1]
        assert paid <= bill.tokens <= limit
        assert limit > whole or bill.tokens > 0.8 * limit  # what is left would not hold another request
        paid = bill.tokens
        if codes[-1]:
            left = sum(b'"status":"done"' not in tree for tree in trees(tmp_path / "mcts_result").values())
            left += 3 - len(trees(tmp_path / "mcts_result"))
            assert line == (
                f"mcts_collection.py: MAX_TOKENS_TOTAL={limit} reached at {paid}: {left} of 3 trees are left; "
                "the same command with a larger one goes on"
            )
    assert codes == [3, 3, 0]
    assert (
        bill.tokens == whole and trees(tmp_path / "mcts_result") == undisturbed
    )  # nothing was paid for twice
    folder = tmp_path / "mcts_result" / "textcraft" / MODEL
    spent, manifest = read_json(folder / "spent.json"), read_json(folder / "manifest.json")
    actor = manifest["tokens"]["paid"]["actor"]
    assert actor == spent["models"]["actor"]
    assert actor["prompt_tokens"] + actor["completion_tokens"] == bill.tokens and actor["dollars"] == 0
    assert spent["in_flight"] == spent["lost"] == {"tokens": 0, "dollars": 0.0}


def test_money_of_actor_and_judge_is_counted_apart(bill, monkeypatch, tmp_path, capsys):
    Path("prices.json").write_text(json.dumps({MODEL: {"prompt": 1, "completion": 5}}))
    monkeypatch.setenv("PRICES", "prices.json")
    assert search() == 0
    folder = tmp_path / "mcts_result" / "textcraft" / MODEL
    actor = read_json(folder / "manifest.json")["tokens"]["paid"]["actor"]
    dollars = (actor["prompt_tokens"] + 5 * actor["completion_tokens"]) / 1e6
    assert actor["dollars"] == pytest.approx(dollars)
    assert f"paid so far: actor: {actor['calls']:,} calls" in capsys.readouterr().err
    before = bill.tokens
    monkeypatch.setenv("JUDGE_MODEL", "judge")
    revise = ["--input_dir", str(folder), "--output_dir", "records"]
    assert path_collection.main(revise) == 2
    assert "PRICES=prices.json has no model 'judge' (it has textcraft-expert)" in capsys.readouterr().err
    monkeypatch.setenv("TOKEN_PRICE", "100 100")  # of models that the file does not name
    monkeypatch.setenv("MAX_COST", "0.2")
    assert path_collection.main(revise) == 3
    assert "MAX_COST=0.2 reached at $0." in capsys.readouterr().err
    assert 0 < bill.tokens - before <= 2000
    monkeypatch.setenv("MAX_COST", "1000")
    assert path_collection.main(revise) == 0
    manifest = read_json(Path("records/textcraft_centric.manifest.json"))
    paid = manifest["tokens"]["paid"]
    assert [*paid] == ["judge"] and paid["judge"]["dollars"] == pytest.approx((bill.tokens - before) / 1e4)
    assert "judge: " in capsys.readouterr().err
    kept = [v for path in Path("records/verdicts").iterdir() for v in read_json(path)["verdicts"].values()]
    assert paid["judge"]["calls"] == sum(v["asked"] for v in kept)  # no verdict was asked for twice
    assert not {"prices", "token_price", "max_cost"} & set(manifest["settings"])


def test_an_evaluation_ends_before_a_limit_and_goes_on(bill, monkeypatch, capsys):
    play = ["--task_ids", "0-5", "--max_steps", "12"]
    monkeypatch.setenv("TOKEN_PRICE", "10 10")
    monkeypatch.setenv("MAX_COST", "0.05")
    assert evaluation.main(play) == 3
    folder = Path("test_result/textcraft", f"{MODEL}_")
    done = len(list(folder.glob("episode_*.json")))
    assert f"{6 - done} of 6 episodes are left" in capsys.readouterr().err
    assert bill.tokens <= 5000 and not (folder / "summary.json").exists()
    monkeypatch.setenv("MAX_COST", "10")
    assert evaluation.main(play) == 0
    assert read_json(folder / "summary.json")["tokens"]["paid"]["actor"]["dollars"] == pytest.approx(
        bill.tokens / 1e5
    )


def test_commands_that_ask_a_judge_end_before_a_limit_too_and_pay_for_no_verdict_twice(
    bill, monkeypatch, capsys
):
    assert evaluation.main(["--task_ids", IDS, "--max_steps", "8", "--output_dir", "test"]) == search() == 0
    (run,), (folder,) = Path("test").glob("*/*"), Path("mcts_result").glob("*/*")
    loops = partial(evaluation.main, ["loops", "--judge", "model", str(run)])
    sample = partial(judge_report, ["--trees", str(folder), "--judge", "8", "--asked", "asked"])
    for command, spent in ((loops, run / "loops.spent.json"), (sample, Path("asked/spent.json"))):
        bill.tokens = 0
        capsys.readouterr()
        for limit, code in ((1500, 3), (1_000_000, 0)):
            monkeypatch.setenv("MAX_TOKENS_TOTAL", str(limit))
            assert command() == code
            paid, said = read_json(spent)["models"]["judge"], capsys.readouterr().err
            assert 0 < paid["prompt_tokens"] + paid["completion_tokens"] == bill.tokens <= limit
            line = "reached at [0-9]+: what it was answered is kept; the same command with a larger one"
            assert bool(re.search(f"MAX_TOKENS_TOTAL=1500 {line}", said)) == bool(code)
            assert "paid so far: judge: " in said
        whole = bill.tokens
        spent.unlink()
        assert command() == 0 and bill.tokens == whole
        monkeypatch.setenv("MAX_COST", "1")  # no price
        assert command() == 2
        monkeypatch.delenv("MAX_COST")


def ledger(folder: Path, **limits: Any) -> Ledger:
    return Ledger(LedgerPlan(folder / "manifest.json", Limits(**limits), {"actor": Price(1e6, 1e6)}))


def test_requests_in_flight_count_with_the_most_that_they_can_cost(tmp_path):
    book, most = ledger(tmp_path, tokens=100), Paid(prompt_tokens=30, completion_tokens=20)
    assert [book.admit("a", "actor", most) for _ in range(3)] == ["", "", WAIT]
    book.settle("a", "actor", most, Paid(calls=1, prompt_tokens=10), 1.0)
    assert book.admit("a", "actor", most) == WAIT
    book.settle("a", "actor", most, Paid(calls=1, prompt_tokens=50), 1.0)
    assert book.admit("a", "actor", most) == "MAX_TOKENS_TOTAL=100 reached at 60"
    assert book.admit("a", "actor", Paid()) == "MAX_TOKENS_TOTAL=100 reached at 60"  # the stage is ending


def test_what_was_in_flight_when_a_process_was_killed_may_be_on_the_bill(tmp_path):
    book, most = ledger(tmp_path, tokens=200), Paid(prompt_tokens=30, completion_tokens=20)
    assert not book.admit("a", "actor", most) and not book.admit("b", "actor", most)
    assert ledger(tmp_path, tokens=200)._lost.tokens == 100  # as a run after a kill -9 finds it
    book.forget("b")  # a worker of a Ray cluster has died
    book.settle("a", "actor", most, Paid(calls=1, prompt_tokens=7, completion_tokens=1), 1.0)
    book.close()
    found = read_json(tmp_path / "spent.json")
    assert (found["in_flight"]["tokens"], found["lost"]) == (0, {"tokens": 50, "dollars": 50.0})
    assert found["models"]["actor"]["dollars"] == 8.0


def test_hours_add_up_over_runs(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(patience, "now", lambda: clock[0])
    for _ in range(2):
        book = ledger(tmp_path, seconds=9000)
        assert not book.admit("a", "actor", Paid())
        clock[0] += 2700
        book.settle("a", "actor", Paid(), Paid(calls=1), 2700.0)
        clock[0] += 1800
        answer = book.admit("a", "actor", Paid())
        book.close()
    assert answer == "MAX_HOURS=2.5 reached at 2.5"


def test_a_damaged_count_is_one_line(tmp_path):
    (tmp_path / "spent.json").write_text("{")
    with pytest.raises(InputError, match=r"spent.json: truncated or not JSON"):
        ledger(tmp_path)


def test_tokens_that_no_server_reports_are_counted_from_the_texts(tmp_path, capsys):
    book = ledger(tmp_path, tokens=1000)
    actor = MeteredActor(ScriptedActor(lambda *_: ["y" * 40]), Spending(256, book), "actor")
    for _ in range(2):
        actor.sample(ASK)
    paid = book.paid()["actor"]
    assert (paid["calls"], paid["completion_tokens"]) == (2, 80) and paid["prompt_tokens"] >= 400
    with pytest.raises(BudgetReached, match="^MAX_TOKENS_TOTAL=1000 reached at "):
        actor.sample(ASK)
    assert capsys.readouterr().err.count("does not report") == 1


def test_cached_prompt_tokens_have_their_own_price(tmp_path):
    price, sample = Price(3, 15, 0.3), Sample("hello", 1000, 100, cached_tokens=800)
    book = Ledger(LedgerPlan(tmp_path / "manifest.json", Limits(), {"actor": price}))
    actor = ScriptedActor(lambda *_: [])
    actor.sample = lambda *_: [sample]
    MeteredActor(actor, Spending(256, book), "actor").sample(ASK)
    assert book.paid()["actor"]["dollars"] == pytest.approx((200 * 3 + 800 * 0.3 + 100 * 15) / 1e6)


TABLES = {
    "p.json": '{"a": {"prompt": 3, "completion": 15}, "org/b:7b": {"prompt": 0, "completion": 0, "cached": 0.5}}',
    "p.toml": 'a = { prompt = 3, completion = 15 }\n["org/b:7b"]\nprompt = 0\ncompletion = 0\ncached = 0.5\n',
    "p.csv": "\ufeffmodel, prompt, completion, cached\na, 3, 15,\norg/b:7b,0,0,.5\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_price_file_is_json_toml_or_csv(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])
    assert read_prices(str(tmp_path / name)) == {"a": Price(3, 15), "org/b:7b": Price(0, 0, 0.5)}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("p.txt", "x", "p.txt must end in .json, .toml or .csv"),
        ("p.json", "{", "p.json is not JSON: "),
        ("p.json", "[]", "p.json must be an object: model -> prices"),
        ("p.json", "{}", "p.json names no model"),
        ("p.json", '{"a": {"prompt": 3}}', "p.json model 'a' must have prompt and completion"),
        ("p.json", '{"a": {"prompt": 3, "completion": -1}}', "model 'a': completion must be between 0 and 1e+06"),
        ("p.json", '{"a": {"prompt": NaN, "completion": 1}}', "model 'a': prompt must be between 0 and 1e+06"),
        ("p.json", '{"a": {"prompt": true, "completion": 1}}', "dollars: True"),
        ("p.json", '{"a": {"prompt": 1, "completion": 1, "input": 1}}', "and nothing else"),
        ("p.toml", "a = 3", "p.toml model 'a' must have prompt and completion"),
        ("p.toml", "a = ", "p.toml is not TOML: "),
        ("p.csv", "a,3,15\n", "p.csv row 1 must name its columns"),
        ("p.csv", "model,prompt,completion\na,3,x\n", "p.csv row 2: completion must be between 0 and 1e+06"),
        ("p.csv", "model,prompt,completion\na,3,1\na,3,1\n", "row 3: the model 'a' has a price already"),
        ("p.csv", "model,prompt,completion\na,3\n", "row 2 must have prompt and completion"),
        ("p.csv", "model,prompt,completion\na,3,1,2,3\n", "and nothing else"),
    ],
)  # fmt: skip
def test_a_bad_price_file_is_one_line_with_file_and_row(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as found:
        read_prices(str(tmp_path / name))
    assert str(found.value).startswith(f"PRICES={tmp_path}/") and line in str(found.value)


def test_limits_and_prices_that_cannot_be_are_one_line(tmp_path):
    for variable, value in (
        ("MAX_TOKENS_TOTAL", "-1"),
        ("MAX_COST", "nan"),
        ("MAX_HOURS", "x"),
        ("PRICES", "nowhere"),
    ):
        with pytest.raises(InputError, match=f"^{variable} "):
            settings_from_env({variable: value})
    with pytest.raises(InputError, match="^MAX_COST=2 needs prices"):
        settings_from_env({"MAX_COST": "2"})


def test_a_local_model_without_a_price_costs_nothing(tmp_path):
    (tmp_path / "p.csv").write_text("model,prompt,completion\na,3,1\n")
    local = settings_from_env({"PRICES": str(tmp_path / "p.csv"), "MODEL_DIR": str(tmp_path)})
    prices = Prices.of(local)
    assert prices and prices.price(local) == Price()
    with pytest.raises(InputError, match="has no model 'b'"):
        prices.price(local.override(model_name="b", openai_base_url="http://127.0.0.1:1/v1"))

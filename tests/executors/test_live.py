"""Figures of a running stage: on its bar and in a log."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mcts_utils.config import settings_from_env
from mcts_utils.executors.ledger import Ledger, LedgerPlan
from mcts_utils.executors.live import live_bar, open_log
from mcts_utils.executors.spending import Spending
from mcts_utils.terminal import Progress
from mcts_utils.types import InputError, Message, Sample


class Talker:
    """An actor that answers with ten tokens to a hundred."""

    def sample(
        self, messages: Any, n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        return [Sample("Action: look", 100 * (i == 0), 10) for i in range(n)]

    def stats(self) -> dict[str, Any]:
        return {"calls": 1}

    def close(self) -> None:
        return None


def test_the_bar_shows_tokens_requests_and_cost_beside_the_stages_own_figures(capsys, tmp_path):
    settings, logged = settings_from_env({"TOKEN_PRICE": "30000 1000000"}), []
    plan = LedgerPlan.of(settings, tmp_path / "manifest.json", {"actor": settings})
    assert plan
    spending = Spending(256, Ledger(plan))
    make = spending.metered(Talker)
    assert make and spending.metered(None) is None and spending.figures() == {}
    bar_of = lambda: Progress(total=2, desc="search", unit="tree")  # noqa: E731
    with live_bar(bar_of, spending.figures, lambda n, x: logged.append((n, x))) as bar:
        actor = make()
        actor.sample([Message("user", "hello")], n=2)
        bar.update(2)
        bar.set_postfix({"success": "50.0%", "failed": 0, "lr": "-"}, refresh=False)
    assert actor.stats() == {"calls": 1}
    line = capsys.readouterr().err.splitlines()[-1]
    assert "success=50.0%, failed=0" in line and "in flight=0, $=23.00" in line
    done, numbers = logged[-1]
    assert done == 2 and numbers.pop("tokens/s") > 0
    assert numbers == {"success": 50.0, "failed": 0.0, "in flight": 0.0, "$": 23.0}


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    for variable, package in (("TENSORBOARD_DIR", "tensorboard"), ("WANDB_PROJECT", "wandb")):
        with pytest.raises(InputError, match=f"^{variable}='x' needs the package {package}: ") as found:
            open_log(settings_from_env({variable: "x"}), "search").__enter__()
        assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="TOKEN_PRICE must be two numbers, such as 3 15: '3'"):
        settings_from_env({"TOKEN_PRICE": "3"})


def test_where_figures_go_is_in_no_manifest():
    asked = {"TOKEN_PRICE": "3 15", "TENSORBOARD_DIR": "x", "WANDB_PROJECT": "y"}
    assert settings_from_env(asked).public() == settings_from_env({}).public()


def test_tensorboard_gets_the_numbers(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard"
    )
    with open_log(settings_from_env({"TENSORBOARD_DIR": str(tmp_path)}), "search") as log:
        log(3, {"tokens/s": 5.0})
    events = reader.EventAccumulator(str(next(tmp_path.iterdir())))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("search/tokens/s")] == [(3, 5.0)]

"""A run to look at: trees and rows of an earlier version, two evaluations of which one lost a goal; and a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.evaluation.summary import summarise
from mcts_utils.report.view.page import write_page
from mcts_utils.storage.files import write_json
from mcts_utils.storage.layout import episode_path, run_folder
from mcts_utils.types import Step, Task
from tests.helpers.run_files import PROTOCOL, finished_episode

FIXTURES = Path(__file__).parents[2] / "fixtures"
APP = Path(__file__).parents[3] / "mcts_utils/report/view/app"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
EVIL = (
    "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    "<!-- \u202eesrever\u202c \x00 \x1b[31m \ud800 ${window.ran = 1} " + "x" * 1_000_000
)


def steps(*pairs: tuple[str, str], reward: float = 0.0) -> list[Step]:
    """Steps of (action, answer); the last one earns the reward."""
    found = [Step(f"Thought: Now.\nAction: {action}", action, answer, 0.0) for action, answer in pairs]
    last = Step(found[-1].reply, found[-1].action, found[-1].observation, reward, reward == 1)
    return [*found[:-1], last]


LOG = ("get 1 oak log", "Got 1 oak log")
PLANKS = ("craft 4 oak planks using 1 oak log", "Crafted 4 minecraft:oak_planks")
REFUSED = ("craft 4 oak planks", "Could not find a valid recipe")
SOLVED, LOOP = steps(LOG, PLANKS, reward=1.0), steps(LOG, *[REFUSED] * 9)
GOALS: dict[str, tuple[list[Step], list[Step]]] = {  # goal -> steps before and after
    "oak planks": (SOLVED, LOOP),
    "oak slab": (LOOP, SOLVED),
    "oak door": (LOOP, steps(LOG, REFUSED)),
    "<img src=x onerror=window.ran=1>": (steps(("look", EVIL)), steps((EVIL, "Could not find that"))),
}


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run; its name is HTML."""
    run: Path = tmp_path_factory.mktemp("view") / "demo <b> & co"
    shutil.copytree(FIXTURES / "2f48bea/trees", run / "mcts_result/textcraft/tiny_actor")
    shutil.copytree(FIXTURES / "2f48bea/records", run / "records")
    for which, kind in enumerate(("before", "after")):
        folder = run_folder(run / "test_result", "textcraft", "tiny_actor", kind)
        episodes = []
        for index, (goal, taken) in enumerate(GOALS.items()):
            task = Task(
                "textcraft", index, f"textcraft:{index}", f"Crafting commands:\n\nGoal: craft {goal}."
            )
            episodes.append(finished_episode(task, taken[which], taken[which][-1].reward))
            write_json(episode_path(folder, index), episodes[-1])
        names = {"model_name": "tiny_actor", "model_type": kind}
        write_json(folder / "summary.json", summarise(episodes, PROTOCOL, names))
    return run


@pytest.fixture(scope="session")
def page_file(run_dir: Path) -> Path:
    """The page of the run."""
    output = run_dir / "report.html"
    write_page(run_dir, output)
    return output


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser. While it is open an event loop runs here, so that no other module's test may have one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: bash scripts/test.sh installs it where it may")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: bash scripts/setup.sh --dev"
    )
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Shown:
    """A page in the browser, the requests that it made, and what it complained of."""

    def __init__(
        self, browser: Any, file: Path, size: tuple[int, int] = (1280, 900), theme: str = "light"
    ) -> None:
        self.file = file
        self.tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
        self.tab.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.open()

    def open(self, address: str = "") -> None:
        """Go to an address of the page."""
        self.tab.goto(self.file.as_uri() + address)
        self.tab.wait_for_selector("html[data-ready]")

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return " ".join(self.tab.locator(selector).first.inner_text().split())


@pytest.fixture
def shown(chromium: Any, page_file: Path) -> Iterator[Shown]:
    """The run's page, which must load nothing else and complain of nothing."""
    page = Shown(chromium, page_file)
    yield page
    assert {url.split("#")[0] for url in page.requests} == {page_file.as_uri()}
    assert page.complaints == []
    assert page.tab.evaluate("() => window.ran") is None
    page.tab.close()


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the page with what they are built with and tested with."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no Node: the committed bundle is used as it is")
    folder: Path = tmp_path_factory.mktemp("app") / "app"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("node_modules"))
    if (APP / "node_modules").is_dir():
        (folder / "node_modules").symlink_to(APP / "node_modules")
        return folder
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[:1]}")
    return folder

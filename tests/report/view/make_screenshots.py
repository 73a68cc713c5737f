"""Makes the screenshots of docs/report.md again, from the folder of a run of scripts/demo.sh.

python tests/report/view/make_screenshots.py runs/demo
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from PIL import Image
from playwright.sync_api import sync_playwright

from mcts_utils.report.view.page import write_page
from tests.report.view.conftest import CHROMIUM, FLAGS, Shown

DOCS = Path(__file__).resolve().parents[3] / "docs"
LARGE, PHONE = (1280, 860), (400, 860)
SHOTS = (  # name, address, what must be there, size, theme
    ("start", "#start", ".plot canvas", LARGE, "light"),
    ("goal", "#goals?show=lost", ".why", LARGE, "light"),
    ("tree", "#trees?show=mixed&tree=345&node=10", ".this-node", LARGE, "dark"),
    ("row", "#records?kind=revision&row=3", ".part-signal", LARGE, "light"),
    ("phone", "#start", ".plot canvas", PHONE, "dark"),
)


def main(run: Path) -> None:
    """Write docs/report/*.png in 128 colours."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as api:
        file = Path(folder) / "report.html"
        print(write_page(run, file))
        browser = api.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for name, address, there, size, theme in SHOTS:
            page = Shown(browser, file, size, theme)
            page.open(address)
            page.tab.locator(there).first.wait_for()
            picture = Image.open(BytesIO(page.tab.screenshot(animations="disabled"))).convert("RGB")
            target = DOCS / "report" / f"{name}.png"
            target.parent.mkdir(exist_ok=True)
            picture.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
            page.tab.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

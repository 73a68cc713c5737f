"""Sphinx's configuration: the repository's Markdown pages as a site that needs neither a server nor a network.

scripts/docs.sh builds it, with the repository as the source folder: README.md and results/*.md are pages as
docs/*.md are, so all links between them are checked, and a file that a page links to is copied into the site. External
addresses are not checked. The pages are plain Markdown; what they cannot say, their order, is said here.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
HOME = "docs/index"
PAGES = """
quickstart search revision training evaluation report
results /results/experiment /results/PLAN /results/smollm2/experiment
pipeline cluster environments your-environment fork-protocol servers
actors performance costs reliability security configuration file-formats development
""".split()
REPOSITORY = {  # title: page. After them, those that exist
    "README": "README",
    "Contributing": "CONTRIBUTING",
    "Changes": "CHANGELOG",
    "The bundled actor": "models/tiny_actor/README",
}

project = html_title = "Agent-R"
extensions = ["myst_parser"]
include_patterns = ["docs/*.md", "*.md", "models/*/README.md", "results/*.md", "results/*/*.md"]
exclude_patterns = [".*", "runs", "mcts_result", "mcts_training_data", "test_result", "work_dirs"]
root_doc = HOME
myst_heading_anchors = 4  # the same anchors as in the repository's own view of a page
highlight_language = "text"  # of blocks that name none
smartquotes = False
html_theme = "furo"
html_use_index = False
html_copy_source = False
html_show_copyright = False

FOLDER = re.compile(r"(?<!!)\[([^\]]*)\]\(([^()\s#:]+)\)")


def table_of_contents() -> str:
    """Return the pages in their order, as Sphinx reads it."""
    others = [f"{title} </{page}>" for title, page in REPOSITORY.items() if (ROOT / f"{page}.md").exists()]
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(PAGES + others) + "\n```\n"


def prepare(app: Sphinx, page: str, content: list[str]) -> None:
    """Turn links to folders, which a site cannot show, into text; add the table of contents to the first page."""
    here = (ROOT / page).parent
    content[0] = FOLDER.sub(lambda link: link[1] if (here / link[2]).is_dir() else link[0], content[0])
    if page == HOME:
        content[0] += table_of_contents()


def setup(app: Sphinx) -> None:
    """Connect prepare to the reading of a page."""
    app.connect("source-read", prepare)

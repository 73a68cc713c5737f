"""One episode in the shop: the open page, the chosen options, and the effect of actions. No HTTP, no session ids.

Actions are `search[words]` and `click[text on the page]`; an action's name is case-sensitive, its argument is read in
lower case. Any other text, and a click on something that is not on the page, changes nothing and pays nothing. There is
no guard after the end: an agent can search and buy again, as on AgentGym's server.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mcts_utils.servers.webshop import pages
from mcts_utils.servers.webshop.models import Goal, Product
from mcts_utils.servers.webshop.pages import Click, Page
from mcts_utils.servers.webshop.reward import reward
from mcts_utils.servers.webshop.shop import Shop

MAX_ACTION = 10_000  # characters; a longer line is no command


def parsed(action: str) -> tuple[str, str]:
    """Return the name and the argument, in lower case, of an action such as `click[Buy Now]`, or two empty texts.

    The argument is between the last brackets of the first line, so `search[a [b] c]` is no search.
    """
    line = action[: MAX_ACTION + 1].split("\n", 1)[0]
    end = line.rfind("]")
    begin = line.rfind("[", 0, max(end - 1, 0))
    if begin <= 0 or len(line) > MAX_ACTION:
        return "", ""
    return line[:begin], line[begin + 1 : end].lower()


@dataclass
class ShopSession:
    """The state of one episode; pages are made only when they are read. Not thread-safe."""

    shop: Shop
    goal: Goal
    view: str = "search"  # search, results, item, one of pages.SUB_PAGES, or done
    keywords: tuple[str, ...] = ()
    number: int = 1  # of the results page, from 1
    product: Product | None = None
    options: dict[str, str] = field(default_factory=dict)  # chosen so far: name -> value
    paid: float = 0.0  # reward of the last purchase, 0..1

    def copy(self) -> ShopSession:
        """Return an independent session in the same state."""
        return replace(self, options=dict(self.options))

    def page(self) -> Page:
        """Return the open page."""
        text = self.goal.text
        if self.view == "search":
            return pages.search_page(text)
        if self.view == "results":
            return pages.results_page(text, self.shop.found(self.keywords), self.number)
        assert self.product is not None
        if self.view == "item":
            return pages.item_page(text, self.product)
        if self.view == "done":
            return pages.done_page(self.product, self.options, self.paid)
        return pages.sub_page(text, self.product, self.view)

    def instruction(self) -> str:
        """Return the instruction as the page's heading shows it; raise LookupError if the last page has none."""
        if self.view == "done":
            raise LookupError("no instruction on this page")
        return f"Instruction: {self.goal.text}" if self.view == "search" else f"Instruction:{self.goal.text}"

    def step(self, action: str) -> tuple[str, float, bool]:
        """Execute one action; return the text of the page after it, the reward (0..1) and done.

        Raises:
            IndexError: a search for `<c>` without a category.
        """
        name, argument = parsed(action)
        if name == "search":
            self._search(tuple(argument.split(" ")), 1)
        elif name == "click" and argument != "search":
            click = self.page().clicks.get(argument)
            if click is not None and self._click(argument, click):
                return self.page().text, self.paid, True
        return self.page().text, 0.0, False

    def _search(self, keywords: tuple[str, ...], number: int) -> None:
        self.shop.found(keywords)
        self.view, self.keywords, self.number = "results", keywords, number
        self.product, self.options = None, {}

    def _click(self, text: str, click: Click) -> bool:
        """Execute a click that the page offers; return True if it bought the product."""
        if click.kind == "product":
            self.view, self.product = "item", self.shop.by_asin[text]
        elif click.kind == "option":
            self.options[click.option] = text
        elif text == pages.BUY.lower():
            assert self.product is not None
            self.paid = reward(self.product, self.options, self.goal).total
            self.view = "done"
            return True
        else:
            self._open_page(text)
        return False

    def _open_page(self, button: str) -> None:
        """Open the page to which a button leads."""
        if button == pages.BACK.lower():
            self.view, self.keywords, self.number, self.product, self.options = "search", (), 1, None, {}
        elif button == pages.NEXT.lower():
            self._search(self.keywords, self.number + 1)
        elif button != pages.PREVIOUS.lower():
            self.view = next(name for name in pages.SUB_PAGES if name.lower() == button)
        elif self.view == "results":
            self._search(self.keywords, self.number - 1)
        elif self.view == "item":
            self._search(self.keywords, self.number)
        else:
            self.view = "item"

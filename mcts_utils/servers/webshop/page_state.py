"""The state of a shop episode, read from the texts of pages and the actions between them. Text only; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mcts_utils.servers.webshop.engine import parsed
from mcts_utils.servers.webshop.pages import BACK, BUY, PREVIOUS, SEPARATOR

SCORE = "Your score (min 0.0, max 1.0)"
TITLE_FROM_END = 7  # an item page ends with title, price, rating, three sub pages, Buy Now
OptionsByTitle = Mapping[str, Mapping[str, tuple[str, ...]]]  # product title -> option name -> values


@dataclass(frozen=True)
class ParsedPage:
    """What the text of a page says."""

    kind: str  # search, results, item, sub, done, or "" for a text that is not a page
    goal: str = ""  # the instruction, with its price clause
    asins: tuple[str, ...] = ()  # of a results page
    title: str = ""  # of an item page
    texts: tuple[str, ...] = ()  # all texts of the page
    score: float = 0.0  # of a done page, 0..1


@dataclass(frozen=True)
class PageState:
    """The open page, and what the actions so far have selected."""

    page: ParsedPage
    keywords: str = ""  # of the last search
    number: int = 1  # of the results page, from 1
    title: str = ""  # of the open product
    chosen: Mapping[str, str] = field(default_factory=dict)  # option name -> value


def parse_page(text: str) -> ParsedPage:
    """Return what the text of a page says."""
    texts = tuple(text.strip().split(SEPARATOR))
    if texts[0].startswith("Thank you for shopping"):
        score = texts[texts.index(SCORE) + 1] if SCORE in texts else "0"
        return ParsedPage("done", texts=texts, score=float(score))
    if texts[0] == "WebShop" and len(texts) >= 3:
        return ParsedPage("search", texts[2], texts=texts)
    if texts[0] != "Instruction:" or len(texts) < 4 or texts[2] != BACK:
        return ParsedPage("")
    if texts[3].startswith("Page "):
        first = 6 if texts[4] == PREVIOUS else 5
        return ParsedPage("results", texts[1], texts[first::3], texts=texts)
    if texts[-1] == BUY and len(texts) > TITLE_FROM_END + 3:
        return ParsedPage("item", texts[1], title=texts[-TITLE_FROM_END], texts=texts)
    return ParsedPage("sub", texts[1], texts=texts)


def final_state(opening: str, turns: Iterable[tuple[str, str]], options: OptionsByTitle) -> PageState:
    """Return the state at the end of a conversation; answers that are not pages are skipped.

    Args:
        opening: text of the first page.
        turns: actions and the texts that answered them.
        options: of all products of the catalogue.
    """
    state = PageState(parse_page(opening))
    for action, answer in turns:
        page = parse_page(answer)
        if page.kind:
            state = _next_state(state, action, page, options)
    return state


def _next_state(state: PageState, action: str, page: ParsedPage, options: OptionsByTitle) -> PageState:
    """Return the state after an action that was answered with a page."""
    name, argument = parsed(action.strip())
    if page.kind == "results":
        if name == "search":
            return PageState(page, argument)
        turned = {"next >": 1, "< prev": -1}.get(argument, 0) if state.page.kind == "results" else 0
        return PageState(page, state.keywords, state.number + turned if page != state.page else state.number)
    if page.kind in ("sub", "done"):
        return replace(state, page=page)
    if page.kind != "item":
        return PageState(page)
    chosen = dict(state.chosen)
    if state.page.kind == "item" and name == "click":
        for option, values in options.get(page.title, {}).items():
            if argument in values:
                chosen[option] = argument
    return replace(state, page=page, title=page.title, chosen=chosen)

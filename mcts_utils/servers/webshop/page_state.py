"""Where a shopper stands, read from the texts of pages and from the actions between them. Text only; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mcts_utils.servers.webshop.engine import ACTION
from mcts_utils.servers.webshop.pages import BACK, BUY, PREVIOUS, SEPARATOR

SCORE = "Your score (min 0.0, max 1.0)"
TITLE_FROM_END = 7  # title, price, rating, three sub pages, Buy Now


@dataclass(frozen=True)
class Seen:
    """One page as its text tells it."""

    kind: str  # search, results, item, sub, done, or "" for what is no page
    goal: str = ""  # the instruction, with its price clause
    asins: tuple[str, ...] = ()  # of a results page
    title: str = ""  # of an item page
    texts: tuple[str, ...] = ()  # all of it
    score: float = 0.0  # of the last page


@dataclass(frozen=True)
class Situation:
    """A page and what led to it."""

    seen: Seen
    keywords: str = ""  # of the last search
    number: int = 1  # of the results page
    title: str = ""  # of the product looked at
    chosen: Mapping[str, str] = field(default_factory=dict)  # option name -> value


def read(text: str) -> Seen:
    """What page a text is."""
    texts = tuple(text.strip().split(SEPARATOR))
    if texts[0].startswith("Thank you for shopping"):
        score = texts[texts.index(SCORE) + 1] if SCORE in texts else "0"
        return Seen("done", texts=texts, score=float(score))
    if texts[0] == "WebShop" and len(texts) >= 3:
        return Seen("search", texts[2], texts=texts)
    if texts[0] != "Instruction:" or len(texts) < 4 or texts[2] != BACK:
        return Seen("")
    if texts[3].startswith("Page "):
        first = 6 if texts[4] == PREVIOUS else 5
        return Seen("results", texts[1], texts[first::3], texts=texts)
    if texts[-1] == BUY and len(texts) > TITLE_FROM_END + 3:
        return Seen("item", texts[1], title=texts[-TITLE_FROM_END], texts=texts)
    return Seen("sub", texts[1], texts=texts)


def situation(
    opening: str, turns: Iterable[tuple[str, str]], options: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> Situation:
    """The end of a conversation.

    Args:
        opening: the first page.
        turns: actions and the pages that answered them.
        options: of each product by title, as the catalogue has them.
    """
    now = Situation(read(opening))
    for action, answer in turns:
        seen = read(answer)
        if seen.kind:
            now = after(now, action, seen, options)
    return now


def after(
    now: Situation, action: str, seen: Seen, options: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> Situation:
    """One turn on: `seen` answered `action`."""
    parsed = ACTION.match(action.strip())
    name, argument = (parsed[1], parsed[2].lower()) if parsed else ("", "")
    if seen.kind == "results":
        if name == "search":
            return Situation(seen, argument)
        step = {"next >": 1, "< prev": -1}.get(argument, 0) if now.seen.kind == "results" else 0
        return Situation(seen, now.keywords, now.number + step if seen != now.seen else now.number)
    if seen.kind in ("sub", "done"):
        return replace(now, seen=seen)
    if seen.kind != "item":
        return Situation(seen)
    chosen = dict(now.chosen)
    if now.seen.kind == "item" and name == "click":
        for option, values in options.get(seen.title, {}).items():
            if argument in values:
                chosen[option] = argument
    return replace(now, seen=seen, title=seen.title, chosen=chosen)

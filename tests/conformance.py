"""Does a server speak AgentGym's contract? One list of requests per environment, played against any base URL:

    python -m tests.conformance webshop http://127.0.0.1:26002
    python -m tests.conformance webshop --recorded answers.jsonl

A recording is JSON lines with method, path, params, body, status and response; of our requests, those that it holds
are checked in order. Prints one line per request that was answered otherwise than expected, then a summary; exit code
1 if there was any. The lists are in conformance_requests.py. It imports nothing of the package.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.conformance_requests import REQUESTS, Every, Request, Same
from tests.helpers.http_client import HttpClient

VARIABLE = re.compile(r"<([a-z]+)>")
TEXT = "__text__"  # in recordings: the answer was no JSON


class NotThere(Exception):
    """The request cannot be made: not on the recording, or what it names was in no answer."""


# (method, path, content) -> (status, answer)
Exchange = Callable[[str, str, Any], tuple[int, Any]]


def differences(expected: Any, answer: Any, kept: Mapping[str, Any], where: str = "answer") -> Iterator[str]:
    """Where an answer differs from a pattern.

    A type is a value of it (float: any number), a regular expression the whole of a text, a function a check; a dict
    has exactly those fields (more if it has the key `...`), a list those values; Every and Same see there. All else is
    equal.
    """
    if isinstance(expected, Same):
        expected = kept.get(expected.name)
    if isinstance(expected, dict):
        if not isinstance(answer, dict):
            yield f"{where} is {short(answer)}, not an object"
            return
        names = set(expected) - {...}
        if missing := names - set(answer):
            yield f"{where} lacks {sorted(missing)}"
        if ... not in expected and (more := set(answer) - names):
            yield f"{where} has {sorted(more)} too"
        for name in sorted(names & set(answer)):
            yield from differences(expected[name], answer[name], kept, f"{where}.{name}")
    elif isinstance(expected, Every | list):
        if not isinstance(answer, list):
            yield f"{where} is {short(answer)}, not a list"
            return
        patterns = expected if isinstance(expected, list) else [expected.pattern] * len(answer)
        if len(patterns) != len(answer):
            yield f"{where} has {len(answer)} values, not {len(patterns)}"
        for number, (pattern, value) in enumerate(zip(patterns, answer, strict=False)):
            yield from differences(pattern, value, kept, f"{where}[{number}]")
    elif not fits(expected, answer):
        yield f"{where} is {short(answer)}, expected {short(getattr(expected, 'pattern', expected))}"


def fits(expected: Any, answer: Any) -> bool:
    """One value that is no container."""
    if isinstance(expected, type):
        kinds = (int, float) if expected is float else expected
        return isinstance(answer, kinds) and (expected is bool or not isinstance(answer, bool))
    if isinstance(expected, re.Pattern):
        return isinstance(answer, str) and expected.fullmatch(answer) is not None
    if callable(expected):
        try:
            return bool(expected(answer))
        except (TypeError, LookupError):
            return False  # of a type that the check cannot look into
    return bool(answer == expected) and isinstance(answer, bool) == isinstance(expected, bool)


@dataclass
class Outcome:
    """What a run found."""

    checked: int = 0
    left_out: list[str] = field(default_factory=list)  # labels
    failed: list[str] = field(default_factory=list)  # one line each


def play(requests: Sequence[Request], exchange: Exchange) -> Outcome:
    """Make the requests in order and compare the answers."""
    outcome, kept = Outcome(), dict[str, Any]()
    for request in requests:
        try:
            status, answer = exchange(request.method, request.path, filled(request.content, kept))
        except NotThere:
            outcome.left_out.append(request.label)
            continue
        outcome.checked += 1
        allowed = request.status if isinstance(request.status, tuple) else (request.status,)
        if status not in allowed:
            found = [f"status {status}, expected {' or '.join(map(str, allowed))}: {short(answer)}"]
        elif status == allowed[0]:
            found = list(differences(request.expected, answer, kept))
        else:
            found = []
        outcome.failed += [f"{request.method} {request.path} ({request.label}): {line}" for line in found]
        if not found:
            kept.update({name: value(answer) for name, value in request.keep.items()})
    return outcome


def filled(content: Any, kept: Mapping[str, Any]) -> Any:
    """The content with the kept values in place of their names.

    Raises:
        NotThere: no such value.
    """
    if isinstance(content, dict):
        return {name: filled(value, kept) for name, value in content.items()}
    if not isinstance(content, str):
        return content
    names = VARIABLE.findall(content)
    if any(kept.get(name) is None for name in names):
        raise NotThere(content)
    if VARIABLE.fullmatch(content):
        return kept[names[0]]
    return VARIABLE.sub(lambda match: str(kept[match[1]]), content)


def connected(base_url: str) -> HttpClient:
    """A new connection for every request: servers close theirs after a 500."""
    return HttpClient(base_url, timeout=120, keep_alive=False)


def live(client: HttpClient) -> Exchange:
    """Requests to a server; its base URL is the client's."""

    def exchange(method: str, path: str, content: Any) -> tuple[int, Any]:
        sent = {"params": content} if method == "GET" else {"json": content}
        if isinstance(content, bytes):
            sent = {"data": content}
        response = client.request(method, path, **(sent if content is not None else {}))
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, response.text

    return exchange


def recorded(lines: Sequence[Mapping[str, Any]]) -> Exchange:
    """The answers of a recording: for each request the next line behind the last one used that holds it."""
    at = [0]

    def exchange(method: str, path: str, content: Any) -> tuple[int, Any]:
        for number in range(at[0], len(lines)):
            line = lines[number]
            same = line["method"] == method and line["path"] == path
            if same and (line["params"] if method == "GET" else line["body"]) == content:
                at[0] = number + 1
                answer = line["response"]
                text = isinstance(answer, dict) and set(answer) == {TEXT}
                return line["status"], answer[TEXT] if text else answer
        raise NotThere(path)

    return exchange


def short(value: Any) -> str:
    """A value in at most 120 characters, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:120] + "..."


def main(arguments: Sequence[str]) -> int:
    """Play one environment's list; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("env", choices=sorted(REQUESTS))
    parser.add_argument("base_url", nargs="?", help="such as http://127.0.0.1:26002")
    parser.add_argument("--recorded", metavar="FILE", help="check these answers, not a server's")
    args = parser.parse_args(arguments)
    if (args.base_url is None) == (args.recorded is None):
        parser.error("give a base URL or --recorded FILE")
    if args.recorded:
        try:
            lines = Path(args.recorded).read_text(encoding="utf-8").splitlines()
            outcome = play(REQUESTS[args.env], recorded([json.loads(line) for line in lines]))
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"--recorded {args.recorded}: {error!r}")
    else:
        try:
            with connected(args.base_url) as client:
                outcome = play(REQUESTS[args.env], live(client))
        except requests.RequestException as error:
            parser.error(f"{args.base_url}: {error!r}")
    for line in outcome.failed:
        print(line)
    missing = f", not there: {', '.join(outcome.left_out)}" if outcome.left_out else ""
    print(f"{args.env}: {outcome.checked} requests checked, {len(outcome.failed)} differences{missing}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

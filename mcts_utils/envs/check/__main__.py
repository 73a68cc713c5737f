"""Check whether an environment can be searched, and print a verdict a line.

    python -m mcts_utils.envs.check ./my_env.py:make --episodes 20
    python -m mcts_utils.envs.check textcraft --env_server_base http://127.0.0.1:26001

Exit code: 0 no fault, 1 a fault, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment, names, server_about
from mcts_utils.envs.check.probe import Plan, Probe, timed
from mcts_utils.envs.check.verdicts import FAULT, Verdict, as_line
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.own_server import OwnServer, exit_of, own_server
from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_ids import split_ids
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import EnvError, InputError


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    whose = "FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, gymnasium:ID, or a known environment with its server"
    add("task", help=whose)
    add("--env_server_base", help="a server that runs; default: one is started for an environment of yours")
    add("--episodes", type=between(1, 100_000), default=20, help="number of episodes")
    add("--steps", type=between(1, 10_000), default=50, help="steps of an episode, at most")
    given = "file of given episodes, an action a line, with empty lines between; of indices 0, 1, ..."
    add("--actions", help=given)
    seconds, late = between(0.1, 3600, float), "a call that takes longer is a fault"
    add("--limit_seconds", type=seconds, default=10.0, help=late)
    add("--seed", type=between(0, 2**32 - 1), default=0, help="of the random episodes")
    return parser.parse_args(argv)


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what is played; raise InputError if --actions is no file."""
    given: tuple[tuple[str, ...], ...] = ()
    if args.actions is not None:
        if not Path(args.actions).is_file():
            raise InputError(f"--actions is no file: {args.actions!r}")
        parts = Path(args.actions).read_text(encoding="utf-8-sig").strip().split("\n\n")
        given = tuple(tuple(line for line in part.split("\n") if line) for part in parts)
    return Plan(max(args.episodes, len(given)), args.steps, args.seed, given)


@contextmanager
def server_of(source: str, url: str, limit: float) -> Iterator[tuple[str, OwnServer | None]]:
    """Yield the server's URL, and the server if it is started here."""
    if url:
        yield url, None
        return
    if not source:
        raise InputError("ENV_SERVER_BASE is not set (environment, .env or flag)")
    with own_server(source, "--limit_seconds", f"{limit:g}") as server:
        yield server.url, server


def token_counter(model_dir: str) -> Callable[[str], int] | None:
    """Return the function that counts a text's tokens, or None without MODEL_DIR."""
    if not model_dir:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    return lambda text: len(tokenizer.encode(text))


def check(args: argparse.Namespace) -> int:
    """Print the verdicts as they are found and return the exit code."""
    plan = plan_of(args)
    settings = settings_from_env({**given_settings(), "TASK": args.task}, names())
    began = time.monotonic()
    base = args.env_server_base or ("" if settings.task_source else settings.env_server_base)
    with server_of(settings.task_source, base, args.limit_seconds) as (url, server):
        about = server_about(url)
        print(as_line("start", {"the server took": timed(began) if server else None, "kind": about["kind"]}))
        make_environment(settings.task, url).close()  # is it a server of this environment?
        found = {name: split_ids(settings.task, url, name) for name in ("train", "test")}
        split = {name: ids for name, ids in found.items() if ids}
        count, pid = token_counter(settings.model_dir), server.process.pid if server else None
        with closing(HttpSession(url, args.limit_seconds + 5)) as http:
            probe = Probe(http, env_spec(settings.task), about, split, plan, count, pid)
            faults = shown(probe, server)
    print(f"{args.task}: {faults or 'no'} fault{'s' * (faults != 1)}")
    return 1 if faults else 0


def shown(probe: Probe, server: OwnServer | None) -> int:
    """Print the verdicts as they are found and return the number of faults."""
    faults = 0
    for verdict in server_verdicts(probe, server):
        print(verdict, flush=True)
        faults += verdict.level == FAULT
    return faults


def server_verdicts(probe: Probe, server: OwnServer | None) -> Iterator[Verdict]:
    """Yield the probe's verdicts, and one on the server if it does not answer or has ended."""
    try:
        yield from probe.run()
    except EnvError as error:
        yield Verdict(FAULT, "server", " ".join(str(error).split()))
    if server and (code := server.process.poll()) is not None:
        yield Verdict(FAULT, "server", exit_of(code))


def given_settings() -> dict[str, str]:
    """Return the settings of the environment that matter here."""
    settings = settings_from_env()
    return {"ENV_SERVER_BASE": settings.env_server_base, "MODEL_DIR": settings.model_dir}


def main(argv: Sequence[str] | None = None) -> int:
    """Check and return the exit code."""
    return run_command("mcts_utils.envs.check", lambda: check(flags(argv)))


if __name__ == "__main__":
    sys.exit(main())

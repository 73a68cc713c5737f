"""Fixtures and hypothesis settings that several test files use."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from mcts_utils.servers.textcraft.app import running_server

# A shell that starts the tests in the background has SIGINT ignored for all that they start, and some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts wall time: a busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def textcraft_url() -> Iterator[str]:
    """Base URL of a bundled TextCraft server that runs as long as the tests do."""
    with running_server() as base_url:
        yield base_url

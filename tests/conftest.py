"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcts_utils.servers.textcraft.app import running_server


@pytest.fixture(scope="session")
def textcraft_url() -> Iterator[str]:
    """Base URL of a bundled TextCraft server that runs as long as the tests do."""
    with running_server() as base_url:
        yield base_url

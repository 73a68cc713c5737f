"""How much runs at once: defaults of CONCURRENCY and WORKERS. Pure."""

from __future__ import annotations

import math

ENDPOINT_CONCURRENCY = 16  # default of CONCURRENCY for an endpoint
LOCAL_CONCURRENCY = 64  # default of CONCURRENCY for a local model, which answers requests in batches
MAX_AUTO_CONCURRENCY = 128  # CONCURRENCY=auto: requests in flight, at most
MAX_TREES = 64  # trees at once, at most, where fewer keep CONCURRENCY requests in flight


def default_workers(concurrency: int, n_rollout: int, local: bool = False) -> int:
    """Return the number of trees at once: enough that others send requests while one waits for its last rollout.

    A local model keeps the keys and values of the conversations in progress; with more conversations than it has memory
    for, they would only displace each other.
    """
    share = concurrency / max(1, n_rollout)
    if local:
        return max(2, math.ceil(share))
    # Many trees, so that the last ones do not run alone; more than MAX_TREES only where the concurrency needs them.
    return max(2, math.ceil(3 * share), min(MAX_TREES, math.ceil(8 * share)))

"""The limit of requests in flight: adaptive on simulated endpoints, the limiter, and both against a real socket."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from mcts_utils.actors.adaptive_limit import AdaptiveLimit
from mcts_utils.actors.endpoint import EndpointActor
from mcts_utils.actors.limiter import ConcurrencyLimiter
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.types import Message

ASK = [Message("system", "s"), Message("user", "u")]


@dataclass
class Endpoint:
    """An endpoint in simulated time: `slots` requests at once take `latency` each; the client needs `overhead` more."""

    slots: int
    latency: float = 0.05
    overhead: float = 0.01
    queue: int | None = None  # requests that may wait; 429 for more
    refused: int = 0
    limits: list[int] = field(default_factory=list)  # after every answer

    def run(self, adaptive: AdaptiveLimit, answers: int, wanted: int = 10**6) -> list[int]:
        """Keep `adaptive.limit` requests in flight (at most `wanted`) until so many were answered."""
        events: list[tuple[float, int, str]] = []
        number, now, in_flight, waiting, busy = count(), 0.0, 0, 0, 0
        while len(self.limits) < answers:
            while in_flight < min(adaptive.limit, wanted):
                in_flight += 1
                if self.queue is not None and busy == self.slots and waiting >= self.queue:
                    self.refused += 1
                    heapq.heappush(events, (now + 0.001, next(number), "refused"))
                elif busy < self.slots:
                    busy += 1
                    heapq.heappush(events, (now + self.latency, next(number), "served"))
                else:
                    waiting += 1
            now, _, what = heapq.heappop(events)
            if what == "served":
                busy -= 1
                heapq.heappush(events, (now + self.overhead, next(number), "answered"))
                if waiting:
                    waiting, busy = waiting - 1, busy + 1
                    heapq.heappush(events, (now + self.latency, next(number), "served"))
            elif what == "refused":
                adaptive.refused(now, in_flight)
                heapq.heappush(events, (now + 0.5, next(number), "gone"))
            else:
                if what == "answered":
                    adaptive.answered(now, in_flight)
                    self.limits.append(adaptive.limit)
                in_flight -= 1
        return self.limits


@pytest.mark.parametrize("slots", [1, 4, 16, 64])
def test_it_finds_about_as_many_as_the_endpoint_has_slots(slots):
    limits = Endpoint(slots).run(AdaptiveLimit(256), 400 * slots + 400)
    late = sorted(limits[len(limits) // 2 :])
    middle = late[len(late) // 2]
    assert slots <= middle <= 2 * slots + 1
    assert limits[0] <= 4  # it started low


def test_it_does_not_grow_where_nobody_wants_more():
    """Few requests say nothing about what many would do."""
    assert set(Endpoint(64).run(AdaptiveLimit(256), 2000, wanted=3)) == {4}


def test_it_stays_below_the_most():
    assert max(Endpoint(500).run(AdaptiveLimit(maximum=20), 3000)) == 20


def test_refusals_halve_it_once_and_it_comes_back():
    adaptive = AdaptiveLimit(256)
    Endpoint(64).run(adaptive, 3000)
    before = adaptive.limit
    for _ in range(before):  # all that were in flight are refused
        adaptive.refused(1000.0, before)
    assert before // 2 - 1 <= adaptive.limit <= before // 2
    assert max(Endpoint(64).run(adaptive, 6000)) >= 48


def test_it_lives_with_an_endpoint_that_refuses_what_it_cannot_serve():
    endpoint = Endpoint(16, queue=0)
    limits = endpoint.run(AdaptiveLimit(256), 6000)
    late = sorted(limits[2000:])
    assert 6 <= late[len(late) // 2] <= 16
    assert endpoint.refused < len(limits) / 20


def test_the_gate_lets_in_as_many_as_the_limit_and_in_order():
    limiter, order = ConcurrencyLimiter(1, AdaptiveLimit(1)), []
    entered = threading.Event()

    def use(name: int) -> None:
        with limiter:
            order.append(name)
            entered.set()

    with ThreadPoolExecutor(3) as pool:
        with limiter:
            futures = []
            for name in range(3):
                futures.append(pool.submit(use, name))
                while len(limiter._waiting) <= name:
                    pass
            assert not entered.is_set()
        for future in futures:
            future.result(timeout=30)
    assert order == [0, 1, 2]


def test_nobody_passes_while_the_server_wants_a_pause():
    now = [100.0]
    limiter = ConcurrencyLimiter(0, AdaptiveLimit(8), clock=lambda: now[0])
    with limiter:
        limiter.refused(0.01)  # a real timer looks again after that
    with ThreadPoolExecutor(1) as pool:
        inside = threading.Event()

        def use() -> None:
            with limiter:
                inside.set()

        future = pool.submit(use)
        while not limiter._waiting:
            pass
        assert not inside.is_set()
        now[0] += 5.0
        limiter._end_pause()
        future.result(timeout=30)
    assert inside.is_set()


def test_a_closed_gate_holds_nobody():
    limiter = ConcurrencyLimiter(1, AdaptiveLimit(1))
    with ThreadPoolExecutor(1) as pool, limiter:
        future = pool.submit(limiter.__enter__)
        while not limiter._waiting:
            pass
        limiter.close()
        future.result(timeout=30)


def test_an_adaptive_actor_asks_more_and_more_at_once():
    with running_chat(Behaviour(latency=0.01, slots=16), lambda messages, rng: "x") as server:
        actor = EndpointActor(server.base_url, "", MODEL, 8, 0)
        with ThreadPoolExecutor(48) as pool:
            list(pool.map(lambda i: actor.sample(ASK, seed=i), range(400)))
        stats = actor.stats()
        actor.close()
    assert stats["calls"] == 400
    assert 4 < stats["max_in_flight"] <= 48
    assert stats["concurrency"] >= 4


@pytest.mark.parametrize("status", ["429", "503"])
def test_an_adaptive_actor_backs_off_and_waits_as_it_is_told(status):
    waits: list[float] = []
    with running_chat(Behaviour(slots=16), lambda messages, rng: "x") as server:
        actor = EndpointActor(server.base_url, "", MODEL, 8, 0, sleep=waits.append)
        actor.sample(ASK)
        server.behaviour = replace(server.behaviour, fail=status, fail_every=2, retry_after="0.01")
        before = actor.stats()["concurrency"]
        for i in range(3):
            actor.sample(ASK, seed=i)
        after = actor.stats()["concurrency"]
        actor.close()
    assert waits and set(waits) == {0.01}
    assert after < before


def test_a_fixed_number_stays_whatever_the_server_says():
    waits: list[float] = []
    with running_chat(Behaviour(fail="429", fail_every=2), lambda messages, rng: "x") as server:
        actor = EndpointActor(server.base_url, "", MODEL, 8, 5, sleep=waits.append)
        for i in range(4):
            actor.sample(ASK, seed=i)
        assert actor.stats()["concurrency"] == 5
        actor.close()
    assert waits

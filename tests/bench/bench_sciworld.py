"""Measure two ScienceWorld servers' steps per second side by side. Not a test; nothing is asserted.

    python -m tests.bench.bench_sciworld http://127.0.0.1:26002 http://127.0.0.1:8000

The first is the bundled server (it also gives the gold paths), the second a public AgentGym server or another bundled
one. The same gold paths are played on both in turn, so that what else the machine does falls on both alike. The first
round warms them up and is not counted; only steps are, not resets.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from tests.helpers.http_client import HttpClient

FIRST_GAMES = (0, 30, 60, 120, 660, 1396, 1416, 1436, 2936, 3236, 4136, 4168, 4240, 4365, 4615)


def play(client: HttpClient, number: int, index: int, actions: list[str]) -> tuple[int, float]:
    """Steps taken and the seconds that they took."""
    client.post("/reset", json={"id": number, "data_idx": index})
    began = time.perf_counter()
    count = 0
    for action in actions:
        count += 1
        if client.post("/step", json={"id": number, "action": action}).json().get("done", True):
            break
    return count, time.perf_counter() - began


def round_of(
    clients: list[HttpClient], numbers: list[int], games: list[tuple[int, list[str]]], pool
) -> tuple:
    """Steps, and seconds of wall time, of all sessions together on one server."""
    steps, wall = 0, 0.0
    for index, actions in games:
        jobs = [pool.submit(play, c, n, index, actions) for c, n in zip(clients, numbers, strict=True)]
        results = [job.result() for job in jobs]
        steps += sum(count for count, _ in results)
        wall += max(seconds for _, seconds in results)
    return steps, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours")
    parser.add_argument("other")
    parser.add_argument("--sessions", type=int, default=1, help="at once on each server")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    urls = {"ours": options.ours, "other": options.other}
    clients = {
        name: [HttpClient(url, timeout=300) for _ in range(options.sessions)] for name, url in urls.items()
    }
    first = clients["ours"][0]
    games = [(i, first.get("/gold", params={"data_idx": i}).json()["actions"]) for i in FIRST_GAMES]
    numbers = {name: [c.post("/create").json()["id"] for c in some] for name, some in clients.items()}
    totals = {name: [0, 0.0] for name in urls}
    with ThreadPoolExecutor(options.sessions) as pool:
        for number in range(options.rounds + 1):
            for game in games:
                for name in urls:
                    steps, wall = round_of(clients[name], numbers[name], [game], pool)
                    if number:
                        totals[name][0] += steps
                        totals[name][1] += wall
    for name, some in clients.items():
        for client, session in zip(some, numbers[name], strict=True):
            client.post("/close", json={"id": session})
    speeds = {name: steps / wall for name, (steps, wall) in totals.items()}
    for name, (steps, wall) in totals.items():
        print(
            f"{name}: {steps} steps in {wall:.1f} s: {1000 * wall / steps:.2f} ms a step, {speeds[name]:.0f} a second"
        )
    print(f"ours / other: {speeds['ours'] / speeds['other']:.1f}")


if __name__ == "__main__":
    main()

"""Choose where a local model computes, in which number format, with how many threads and how much memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from mcts_utils.actors.engine.job import Fit

CPU_CACHE_BYTES = 2 * 2**30  # keys and values, at most; or a quarter of the machine's memory, if that is less
GPU_CACHE_SHARE = 0.8  # of the memory that is free after the model is loaded
# Number of weights below which a second CPU thread waits more than it computes. Measured with 1.2 M weights on two
# cores, one of them busy with another process: 10.1 rollouts/s with one thread, 8.4 with two, fewer under
# OMP_WAIT_POLICY=passive.
ONE_THREAD_BELOW = 20_000_000
CLEARLY_FASTER = 1.2  # times that bfloat16 must be faster than float32 to be taken
TIMINGS = 5  # of each
# Processes that share the requests, at most, and requests in flight that keep one busy.
PROCESSES, REQUESTS_EACH = 8, 8
COPIES_SHARE = 0.25  # of the memory, for processes
PROCESS_BYTES = 2**30  # of one, beside weights, keys and values
SMALL_MEMORY = 8 * 2**30
MATRIX = 2**24  # elements of the matrix that is timed


def pick_device() -> tuple[torch.device, torch.dtype]:
    """Return the best device of this machine and the type of weights for it."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if torch.backends.mps.is_available():
        return torch.device("mps"), torch.float16
    return torch.device("cpu"), torch.float32


def cache_bytes(device: torch.device, cache_gb: float = 0) -> int:
    """Return the number of bytes that keys and values may take: `cache_gb` GiB, or 0 for the device's default."""
    if cache_gb:
        return int(cache_gb * 2**30)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_CACHE_SHARE)
    return min(CPU_CACHE_BYTES, memory_bytes() // 4)


def memory_bytes() -> int:
    """Return the size of the machine's memory; where the system does not say, of a small one's."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return SMALL_MEMORY


def choose_fit(model: Any, number_format: str, concurrency: int) -> Fit:
    """Return the number format that is faster on this CPU, and threads and processes that are.

    Below ONE_THREAD_BELOW weights format and threads are known. Above, products as in a decode step and in a prefill
    are timed: formats by the CPU time of one thread, which other processes change little, because the format decides
    about the tokens; threads by the clock.

    Args:
        concurrency: requests expected in flight.
    """
    cores = torch.get_num_threads()  # OMP_NUM_THREADS, where that is set
    weights = model.num_parameters()
    if weights < ONE_THREAD_BELOW:
        chosen = number_format if number_format != "auto" else "float32"
        return Fit(chosen, 1, processes_for(weights * 4, concurrency, cores))
    width = model.get_input_embeddings().embedding_dim
    cost = {
        kind: product_seconds(width, kind, 1, time.thread_time) for kind in (torch.float32, torch.bfloat16)
    }
    gain = cost[torch.float32] / cost[torch.bfloat16]
    chosen = number_format if number_format != "auto" else "bfloat16" if gain > CLEARLY_FASTER else "float32"
    dtype = getattr(torch, chosen)
    processes = processes_for(weights * dtype.itemsize, concurrency, cores)
    most = cores // processes
    took = {n: product_seconds(width, dtype, n, time.perf_counter) for n in sorted({1, most})}
    threads = min(took, key=took.__getitem__)
    shown = " and ".join(f"{1e3 * seconds:.0f} ms with {n}" for n, seconds in took.items())
    how = f"{threads} of {most} threads"
    if processes > 1:
        how = f"up to {processes} processes with a copy of it, {threads} of {cores} threads each"
    print(
        f"local model: {chosen}, {how} (bfloat16 is {gain:.1f} times as fast as float32 here; a product takes "
        f"{shown}); NUMBER_FORMAT and OMP_NUM_THREADS set them",
        file=sys.stderr,
    )
    return Fit(chosen, threads, processes)


def processes_for(size: int, concurrency: int, cores: int) -> int:
    """Return the number of processes in which a model of `size` bytes answers fastest on a CPU.

    The threads of one process wait for each other after each of a pass's many small products. So it is one for each
    core, as long as all are busy and the copies are small beside the machine's memory.
    """
    fitting = int(memory_bytes() * COPIES_SHARE / (size + PROCESS_BYTES))
    return max(1, min(PROCESSES, cores, concurrency // REQUESTS_EACH, fitting))


def product_seconds(width: int, dtype: torch.dtype, threads: int, clock: Callable[[], float]) -> float:
    """Return the least time of multiplying 8 and 64 rows of `width` with a matrix that no cache holds, in seconds."""
    torch.set_num_threads(threads)
    matrix = torch.ones(MATRIX // width, width, dtype=dtype)
    took = []
    with torch.inference_mode():
        for _ in range(TIMINGS):
            began = clock()
            for rows in (8, 64):
                torch.nn.functional.linear(torch.ones(rows, width, dtype=dtype), matrix)
            took.append(clock() - began)
    return min(took)

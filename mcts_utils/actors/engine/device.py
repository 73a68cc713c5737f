"""Choose where a local model computes, in which number format, with how many threads and how much memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

CPU_CACHE_BYTES = 2 * 2**30  # keys and values, at most; or a quarter of the machine's memory, if that is less
GPU_CACHE_SHARE = 0.8  # of the memory that is free after the model is loaded
# Number of weights below which a second CPU thread waits more than it computes. Measured with 1.2 M weights on two
# cores, one of them busy with another process: 10.1 rollouts/s with one thread, 8.4 with two, fewer under
# OMP_WAIT_POLICY=passive.
ONE_THREAD_BELOW = 20_000_000
CLEARLY_FASTER = 1.2  # times that bfloat16 must be faster than float32 to be taken
TIMINGS = 5  # of each
# Processes that share the requests, at most, and requests in flight that keep one busy: with 32 at once the bundled
# actor gives as many tokens a second and core as with 64.
PROCESSES, REQUESTS_EACH = 8, 16
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
    try:
        return min(CPU_CACHE_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
    except (AttributeError, ValueError, OSError):
        return CPU_CACHE_BYTES


def processes_for(model: Any, concurrency: int, cores: int) -> int:
    """Return in how many processes a model answers best, each with a copy of it.

    A small model on a CPU: one for each core that it may use, as long as all are busy. Else one.
    """
    if model.device.type != "cpu" or model.num_parameters() >= ONE_THREAD_BELOW:
        return 1
    return max(1, min(PROCESSES, cores, concurrency // REQUESTS_EACH))


def fit_to_cpu(model: Any, number_format: str) -> Any:
    """Return the model in the number format that is faster on this CPU, and set the threads that are.

    Below ONE_THREAD_BELOW weights that is known: one thread, float32. Above, products as in a decode step and in a
    prefill are timed: formats by the CPU time of one thread, which other processes change little, because the format
    decides about the tokens; threads by the clock.
    """
    if model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
        return model.to(torch.bfloat16) if number_format == "bfloat16" else model
    width = model.get_input_embeddings().embedding_dim
    most = torch.get_num_threads()  # OMP_NUM_THREADS, where that is set
    cost = {
        kind: product_seconds(width, kind, 1, time.thread_time) for kind in (torch.float32, torch.bfloat16)
    }
    gain = cost[torch.float32] / cost[torch.bfloat16]
    chosen = number_format if number_format != "auto" else "bfloat16" if gain > CLEARLY_FASTER else "float32"
    dtype = getattr(torch, chosen)
    took = {n: product_seconds(width, dtype, n, time.perf_counter) for n in sorted({1, most})}
    threads = min(took, key=took.__getitem__)
    torch.set_num_threads(threads)
    shown = " and ".join(f"{1e3 * seconds:.0f} ms with {n}" for n, seconds in took.items())
    print(
        f"local model: {chosen}, {threads} of {most} threads (bfloat16 is {gain:.1f} times as fast as float32 here; a "
        f"product takes {shown}); NUMBER_FORMAT and OMP_NUM_THREADS set them",
        file=sys.stderr,
    )
    return model.to(dtype)


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

"""What the device itself can do, by torch: the two ceilings of the roofline and the links around it.

Copy bandwidth counts bytes read and written; matrix rate is 2·n³ over the best time. Both on data that is
random, since zeros let some devices clock higher than real work does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_REPEATS = 7
_COPY_BYTES = {"cpu": 1 << 28, "gpu": 1 << 32}
_MATRIX_SIZE = {"cpu": 1024, "gpu": 8192}
_LINK_BYTES = 1 << 28


def measure_ceilings(platform: str) -> dict[str, float]:
    """Rates in SI units; a rate that the device lacks is absent."""
    import torch

    place = "cpu" if platform == "cpu" else "cuda"
    found = {"copy_bytes_per_s": _copy_rate(torch, place)}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        found[f"matrix_{name}_flop_per_s"] = _matrix_rate(torch, place, dtype)
    if place == "cuda":
        found |= _fp8_rate(torch, place) | _host_link(torch)
        if torch.cuda.device_count() > 1:
            found |= _peer_link(torch)
    return found


def _best_s(torch: Any, place: str, work: Callable[[], Any]) -> float:
    """Fastest of several runs after one that warms up: a ceiling is what is possible."""
    work()
    best = float("inf")
    for _ in range(_REPEATS):
        if place == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if place == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def _copy_rate(torch: Any, place: str) -> float:
    size = _COPY_BYTES["cpu" if place == "cpu" else "gpu"]
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    return 2 * size / _best_s(torch, place, lambda: target.copy_(source))


def _matrix_rate(torch: Any, place: str, dtype: Any) -> float:
    size = _MATRIX_SIZE["cpu" if place == "cpu" else "gpu"]
    a = torch.randn(size, size, device=place).to(dtype)
    b = torch.randn(size, size, device=place).to(dtype)
    return 2 * size**3 / _best_s(torch, place, lambda: a @ b)


def _fp8_rate(torch: Any, place: str) -> dict[str, float]:
    if torch.version.hip or torch.cuda.get_device_capability() < (8, 9):
        return {}
    size = _MATRIX_SIZE["gpu"]
    a = torch.randn(size, size, device=place).to(torch.float8_e4m3fn)
    b = torch.randn(size, size, device=place).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=place)
    best_s = _best_s(
        torch, place, lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    )
    return {"matrix_fp8_flop_per_s": 2 * size**3 / best_s}


def _host_link(torch: Any) -> dict[str, float]:
    host = torch.empty(_LINK_BYTES, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(_LINK_BYTES, dtype=torch.uint8, device="cuda")
    to_s = _best_s(torch, "cuda", lambda: device.copy_(host, non_blocking=True))
    from_s = _best_s(torch, "cuda", lambda: host.copy_(device, non_blocking=True))
    return {
        "host_to_device_bytes_per_s": _LINK_BYTES / to_s,
        "device_to_host_bytes_per_s": _LINK_BYTES / from_s,
    }


def _peer_link(torch: Any) -> dict[str, float]:
    """All-reduce over all devices of this process, ring-normalised, and its latency at 8 KiB."""
    import torch.cuda.nccl as nccl

    count = torch.cuda.device_count()

    def reduce_s(elements: int) -> float:
        tensors = [torch.ones(elements, device=f"cuda:{i}") for i in range(count)]

        def work() -> None:
            nccl.all_reduce(tensors)
            for i in range(count):
                torch.cuda.synchronize(i)

        return _best_s(torch, "cuda", work)

    elements = _LINK_BYTES // 4
    ring = 2 * (count - 1) / count * _LINK_BYTES
    return {"all_reduce_bytes_per_s": ring / reduce_s(elements), "all_reduce_latency_s": reduce_s(2048)}

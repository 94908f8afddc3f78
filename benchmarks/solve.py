"""CPU seconds of planning: the shipped example, and one model alone on 64 H200 (8 nodes).

    python benchmarks/solve.py

Each case: candidates, programme, lanes, plan; reading input and importing are not counted. Last line: one
JSON object.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from moai_planner.catalog.capacity import capacity_from_flags, read_capacity
from moai_planner.catalog.parameters import parameters_for
from moai_planner.domain.cluster import CapacityRequest
from moai_planner.solver.solve import solve

REPEATS = 3
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mixed-vendor" / "capacity.yaml"
MIDDLE = {"confidence": "none"}
"""Planned with the middle of the predicted step times, as planners without intervals do."""
ALONE = {
    "qwen3_32b": ("Qwen/Qwen3-32B", "50 req/s", "ttft_p95<=1s,tpot_p95<=30ms"),
    "gpt_oss_120b": ("openai/gpt-oss-120b", "100 req/s", "ttft_p95<=1s,tpot_p95<=20ms"),
    "deepseek_v3": ("deepseek-ai/DeepSeek-V3", "20 req/s", "ttft_p95<=2s,tpot_p95<=50ms"),
}


def alone(model: str, rate: str, slo: str) -> CapacityRequest:
    """One deployment on 8 nodes of 8 H200."""
    return capacity_from_flags(
        model, "h200_sxm:8x8", "azure_2023_conv", slo, deployment={"rate": rate}, options=MIDDLE
    )


def solve_cpu_s(request: CapacityRequest) -> tuple[float, str, float]:
    """Median CPU time of a solve, its status and its gap."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        plan = solve(request, parameters_for)
        times.append(time.process_time() - start)
    return statistics.median(times), plan.status, plan.objective.gap


def main() -> None:
    """Run all cases."""
    figures: dict[str, float | str] = {}
    requests = {"example": read_capacity(EXAMPLE)} | {name: alone(*case) for name, case in ALONE.items()}
    for name, request in requests.items():
        cpu_s, status, gap = solve_cpu_s(request)
        print(f"{name}: {cpu_s:.3f} CPU s, {status}, gap {gap:.2%}")
        key = "solve_cpu_s" if name == "example" else f"solve_{name}_cpu_s"
        figures[key] = round(cpu_s, 4)
        figures[f"{name}_status"] = status
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

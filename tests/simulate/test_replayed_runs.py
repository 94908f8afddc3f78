"""Published runs, request by request, through the simulator with step times of measured operators."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MOAI_SHARED_DATA", ROOT.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (DATA / "runs").is_dir(), reason="no runs beside the project"),
]


@pytest.fixture(scope="module")
def replay():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import replay as module
    finally:
        sys.path.pop(0)
    return module


@pytest.mark.parametrize(
    ("name", "tpot", "e2el"),
    [
        ("RTX4090__Llama-3.1-8B", 0.05, 0.06),
        ("RTXPRO6000__Llama-3.1-8B", 0.03, 0.04),
        ("RTXPRO6000__Qwen3-30B-A3B-Instruct-2507", 0.05, 0.06),
        ("RTXPRO6000__Qwen3-32B", 0.15, 0.18),
    ],
)
def test_runs_of_cards(replay, name, tpot, e2el):
    """Mean TPOT, mean and p99 E2E; the run over PCIe is less sure."""
    predicted, measured, _ = replay.replay(DATA / "runs", name, True)
    error = abs(predicted / measured - 1)
    assert error[1] < tpot and error[2] < e2el and error[3] < e2el

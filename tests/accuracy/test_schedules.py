"""How published launch scripts schedule: what is read of them, and that others have none of it."""

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.accuracy.draft import NONE, drafting, kept_tokens
from moai_planner.accuracy.recipes import decode_slots, receive_steps
from moai_planner.accuracy.run import Run, Workers
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model

RUN = Run(
    id="row",
    source="InferenceX",
    date="",
    model="deepseek-ai/DeepSeek-R1",
    precision="fp8",
    engine_version="",
    workers=(Workers("b200_sxm", "sglang", 1, 8, 1, 1, 1),),
    kv_connector="",
    spec_decode="mtp",
    arrivals="closed",
    isl_tokens=922.0,
    osl_tokens=922.0,
    length_low_frac=0.8,
    concurrency=64.0,
    request_rate=0.0,
    requests=640,
    prefix_hit_frac=0.0,
    max_num_seqs=0,
    max_num_batched_tokens=0,
    kv="",
    split="calibrate",
    notes="",
)


def run(engine: str, *, dp: int = 1, prefill: bool = False, **changes) -> Run:
    last = Workers("b200_sxm", engine, 1, 8 // dp, 1, dp, 1)
    return replace(RUN, workers=(last, last) if prefill else (last,), **changes)


def test_when_new_requests_are_looked_for():
    blackwell, hopper = accelerator("b200_sxm"), accelerator("h200_sxm")
    assert receive_steps(run("sglang"), blackwell) == 30.0
    assert receive_steps(run("sglang", concurrency=8.0), blackwell) == 10.0
    for other in (run("sglang", dp=8), run("trtllm"), run("sglang", prefill=True)):
        assert receive_steps(other, blackwell) == 1.0
    assert receive_steps(run("sglang"), hopper) == 1.0
    assert receive_steps(run("sglang", source="somebody's runs"), blackwell) == 1.0


@pytest.mark.parametrize(
    ("dp", "concurrency", "slots"), [(8, 2151.0, 256.0), (1, 6.5, 4.0), (8, 2048.0, np.inf), (8, 4.0, np.inf)]
)
def test_slots_of_ranks_that_are_offered_more(dp, concurrency, slots):
    """The script of 2151 requests on eight ranks says 256 a rank, five percent less."""
    assert decode_slots(run("trtllm", dp=dp, prefill=True, concurrency=concurrency)) == slots
    assert decode_slots(run("sglang", dp=dp, prefill=True, concurrency=concurrency)) == np.inf


def test_tokens_drafted():
    deepseek = model(RUN.model)

    def tokens(engine: str, platform: str = "cuda", **changes) -> float:
        return drafting(run(engine, **changes), deepseek, platform).tokens

    assert (tokens("sglang"), tokens("sglang", "rocm"), tokens("trtllm")) == (2.0, 3.0, 3.0)
    assert (tokens("trtllm", dp=8), tokens("trtllm", dp=8, prefill=True)) == (1.0, 3.0)
    assert tokens("trtllm", dp=8, prefill=True, concurrency=2048.0) == 1.0
    assert drafting(run("sglang", spec_decode="none"), deepseek, "cuda") == NONE


def test_each_further_token_is_kept_less_often():
    """Law: more drafted, more kept, each adds less than the one before; nothing beyond those drafted."""
    kept = [kept_tokens(n, 0.8) for n in range(5)]
    gains = np.diff(kept)
    assert kept[0] == 1.0 and (gains > 0).all() and (np.diff(gains) < 0).all()
    assert (np.diff(gains[1:] / gains[:-1]) < 0).all()
    assert kept_tokens(np.array([0.0, 3.0]), np.array([0.5, 0.8])).tolist() == [1.0, kept[3]]

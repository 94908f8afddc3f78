"""Step times summed from operator timings: exact at the timings, limited to the layers that were timed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.operator_file import operators_for
from moai_planner.catalog.parameters import parameters_for
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.operators import REFERENCE_TOKENS
from moai_planner.costmodel.serving import measured_steps_of, step_times
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.operators import Grid
from moai_planner.domain.precision import precision
from moai_planner.domain.provenance import Basis

LLAMA = model("meta-llama/Llama-3.1-8B-Instruct")
BF16 = precision("bf16")
ONE = Layout(1, 1, 1, 1)


def _configuration(device="rtx_4090", chosen=LLAMA, layout=ONE, engine=None):
    a = accelerator(device)
    table = operators_for(device, "vllm", chosen, BF16, layout)
    engine = engine or Engine(name="vllm", max_num_seqs=128, max_num_batched_tokens=2048)
    return Configuration(
        a, chosen, BF16, layout, engine, 8, 1e10, parameters_for(a, "vllm", BF16), table or ()
    )


def test_grid_is_exact_at_points_linear_between_and_goes_on_outside():
    axes = (np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0]))
    grid = Grid(axes, np.add.outer(3 * axes[0], axes[1]))
    wanted = np.random.default_rng(0).uniform(1, 30, (2, 50))
    assert np.allclose(grid.at(*wanted), 3 * wanted[0] + wanted[1])


def test_grid_goes_on_as_its_last_octave_whatever_its_last_two_points():
    grid = Grid((np.array([1.0, 512.0, 1024.0, 2047.0, 2048.0]),), np.array([1.0, 5.0, 10.0, 20.0, 20.0]))
    assert float(grid.at(2048.0)) == 20.0
    assert float(grid.at(4096.0)) == pytest.approx(40.0)


def test_grid_never_falls_below_the_value_at_its_end():
    grid = Grid((np.array([1.0, 50.0, 100.0]),), np.array([9.0, 12.0, 8.0]))
    assert grid.at(np.array([100.0, 150.0, 400.0])).tolist() == [8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("device", "name", "active"),
    [
        ("rtx_4090", "meta-llama/Llama-3.1-8B-Instruct", 6.9e9),
        ("rtx_pro_6000", "meta-llama/Llama-3.1-8B-Instruct", 6.9e9),
        ("rtx_pro_6000", "Qwen/Qwen3-32B", 31.2e9),
        ("rtx_pro_6000", "Qwen/Qwen3-30B-A3B", 3.0e9),
    ],
)
def test_no_prompt_beats_the_peak_rate_within_or_beyond_the_timed_steps(device, name, active):
    """`active`: parameters that every token is multiplied with, embedding and head aside (model cards)."""
    engine = Engine(name="vllm", max_num_seqs=128, max_num_batched_tokens=32768)
    chosen = model(name)
    c = _configuration(device, chosen, engine=engine)
    assert c.measured.layer.axes[0][-1] < 4096, "the law is about steps longer than any that was timed"
    times = step_times(c)
    a_token = 2 * active / c.accelerator.flop_per_s("bf16")
    for tokens in (256, 2048, 4096, 8192, 32768):
        assert float(times.mixed_step_s(tokens, tokens**2 / 2)) > a_token * tokens


def test_a_decode_step_is_the_sum_of_its_operators():
    c = _configuration()
    times, table = step_times(c), c.measured
    for batch in (1, 8, 64):
        attention = table.decode.at(batch, REFERENCE_TOKENS) * (1 + table.spread.at(batch))
        parts = (
            LLAMA.layers * (table.layer.at(batch) + attention) + table.tail.at(batch) + table.head.at(batch)
        )
        assert times.decode_step_s(batch, batch * REFERENCE_TOKENS) == pytest.approx(float(parts), rel=0.03)
    assert times.basis == Basis.INTERPOLATED
    assert measured_steps_of(c) is None


def test_steps_grow_with_sequences_tokens_and_context():
    times = step_times(_configuration())
    assert (np.diff(times.decode_s) >= 0).all() and (np.diff(times.mixed_s) >= 0).all()
    assert min(times.kv_s, times.pair_s, times.mixed_row_s) > 0


def test_no_step_beats_reading_the_weights():
    c = _configuration()
    floor_s = 2 * 7.5e9 / c.accelerator.memory_bandwidth_bytes_per_s
    assert step_times(c).decode_s[1] > floor_s


def test_layers_are_what_must_match():
    deeper = replace(
        LLAMA,
        id="deeper",
        layers=64,
        attention=tuple(replace(part, layers=64) for part in LLAMA.attention),
        feed_forward=tuple(replace(part, layers=64) for part in LLAMA.feed_forward),
    )
    base, more = step_times(_configuration()), step_times(_configuration(chosen=deeper))
    assert 1.8 < float(more.decode_step_s(32, 32768) / base.decode_step_s(32, 32768)) < 2.0
    assert operators_for("rtx_4090", "vllm", model("Qwen/Qwen3-8B"), BF16, ONE) is None
    assert operators_for("rtx_4090", "vllm", LLAMA, precision("fp8"), ONE) is None
    assert operators_for("rtx_4090", "vllm", LLAMA, BF16, Layout(2, 1, 1, 1)) is None
    assert operators_for("rtx_4090", "sglang", LLAMA, BF16, ONE) is None
    assert operators_for("h100_sxm", "vllm", LLAMA, BF16, ONE) is None


def test_experts_and_ranks():
    mixture = model("Qwen/Qwen3-30B-A3B")
    alone = step_times(_configuration("rtx_pro_6000", mixture))
    shared = step_times(_configuration("rtx_pro_6000", mixture, Layout(1, 1, 2, 2)))
    assert alone.basis == shared.basis == Basis.INTERPOLATED
    assert alone.decode_s[64] > alone.decode_s[1] > 0
    assert operators_for("rtx_pro_6000", "vllm", mixture, BF16, Layout(2, 1, 1, 1)) is None
    two = _configuration("rtx_pro_6000", LLAMA, Layout(2, 1, 1, 1))
    assert step_times(two).decode_s[1] < step_times(_configuration("rtx_pro_6000")).decode_s[1]


def test_an_engine_that_waits_for_its_host_is_slower():
    engine = Engine(name="vllm", max_num_seqs=128, max_num_batched_tokens=2048)
    waits = replace(engine, async_scheduling=False)
    assert (
        step_times(_configuration(engine=waits)).decode_s[8]
        > step_times(_configuration(engine=engine)).decode_s[8]
    )

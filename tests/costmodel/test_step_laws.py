"""Laws of step times: what must never get faster, and what must agree with what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moai_planner.catalog.models import model
from moai_planner.costmodel.arrays import columns, work_of
from moai_planner.costmodel.launch import Narrow, kernels
from moai_planner.costmodel.serving import breakdown, step_times, step_times_many, step_times_of
from moai_planner.costmodel.step import padded_sizes
from moai_planner.domain.layout import Engine, capture_sizes
from tests.costmodel.cases import (
    ALL,
    DENSE,
    EXPERTS,
    LATENT,
    WINDOWED,
    configuration,
    with_accelerator,
    with_parameters,
)


@pytest.mark.parametrize("which", ALL)
def test_more_work_never_takes_less(which):
    """Step times never fall with the batch, the tokens, the context or the pairs."""
    times = step_times(configuration(which))
    assert np.all(np.diff(times.decode_s[1:]) >= 0)
    assert np.all(np.diff(times.tokens) > 0)
    assert np.all(np.diff(times.mixed_s) >= 0)
    assert times.kv_s > 0 and times.pair_s > 0
    assert np.all(np.isfinite(times.decode_s)) and times.decode_s[0] == 0


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("field", ["memory_bandwidth_bytes_per_s", "flop"])
def test_a_better_device_is_never_slower(which, field):
    """More bandwidth, or more flop, at the same parameters."""
    slow = configuration(which)
    if field == "flop":
        peaks = {name: 1.5 * peak for name, peak in slow.accelerator.peak_flop_per_s.items()}
        fast = with_accelerator(slow, peak_flop_per_s=peaks)
    else:
        fast = with_accelerator(
            slow, memory_bandwidth_bytes_per_s=1.5 * slow.accelerator.memory_bandwidth_bytes_per_s
        )
    before, after = step_times(slow), step_times(fast)
    assert np.all(after.decode_s <= before.decode_s)
    assert np.all(after.mixed_s <= before.mixed_s)
    assert after.kv_s <= before.kv_s and after.pair_s <= before.pair_s


@pytest.mark.parametrize(("which", "pays"), [(DENSE, True), (WINDOWED, True), (LATENT, False)])
def test_context_costs_beside_the_roofline_where_attention_is_not_latent(which, pays):
    """Law: a cost per context token adds itself, and nothing to a model that is all MLA."""
    free = step_times(with_parameters(configuration(which), context_token_s=1e-12))
    dear = step_times(with_parameters(configuration(which), context_token_s=5e-8))
    assert dear.kv_s - free.kv_s == pytest.approx(5e-8 if pays else 0.0, rel=1e-3)


@pytest.mark.parametrize("which", ALL)
def test_a_decode_step_pays_at_least_the_data_sheet(which):
    """No step beats reading the weights it needs at the full rate of the memory."""
    c = configuration(which)
    work, times = work_of(c), step_times(c)
    dense = work.projection_bytes + work.dense_bytes + work.head_bytes
    assert times.decode_s[1] > dense / c.accelerator.memory_bandwidth_bytes_per_s


@pytest.mark.parametrize("which", ALL)
def test_many_at_once_equal_one_at_a_time(which):
    """Columns and single configurations use the same formulas."""
    several = [
        configuration(which),
        configuration(DENSE, "mi300x", tp=4, max_num_seqs=64),
        configuration(which, "b200_sxm", tp=4, pp=2, max_num_seqs=700, graphs=False),
        configuration(EXPERTS, "h100_sxm", tp=1, dp=8, ep=8, max_num_batched_tokens=2048),
    ]
    together = step_times_many(several)
    for one, many in zip(map(step_times, several), together, strict=True):
        np.testing.assert_allclose(many.decode_s, one.decode_s, rtol=1e-12)
        np.testing.assert_array_equal(many.tokens, one.tokens)
        np.testing.assert_allclose(many.mixed_s, one.mixed_s, rtol=1e-12)
        assert (many.kv_s, many.pair_s) == pytest.approx((one.kv_s, one.pair_s), rel=1e-12)


def test_same_input_same_bytes():
    """Two evaluations give identical arrays."""
    first, second = step_times(configuration(LATENT)), step_times(configuration(LATENT))
    assert first.decode_s.tobytes() == second.decode_s.tobytes()
    assert first.mixed_s.tobytes() == second.mixed_s.tobytes()


def test_loads_read_before_serve_other_parameters():
    """A fit that changes only parameter columns sees what a fresh configuration would."""
    c = configuration(EXPERTS)
    changed = with_parameters(c, expert_bandwidth_frac=0.4, step_s=0.004)
    work, _ = columns([c])
    _, parameters = columns([changed])
    np.testing.assert_array_equal(
        step_times_of([changed], work, parameters)[0].decode_s, step_times(changed).decode_s
    )


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize(("batch", "context"), [(1, 4096), (24, 9000), (200, 1024)])
def test_breakdown_of_decode_adds_up(which, batch, context):
    """The parts are the step, wherever the context fills the windows and stays under a sparse limit."""
    c = configuration(which)
    parts = sum(one.seconds for one in breakdown(c, "decode", batch, context))
    assert parts == pytest.approx(float(step_times(c).decode_step_s(batch, batch * context)), rel=1e-9)


@pytest.mark.parametrize("which", ALL)
def test_breakdown_of_prefill_adds_up(which):
    """A long chunk: the window's ramp at the start of a prompt is all that differs."""
    c = configuration(which)
    parts = sum(one.seconds for one in breakdown(c, "prefill", 8192, 0))
    assert parts == pytest.approx(float(step_times(c).mixed_step_s(8192, 8192 * 4096)), rel=0.01)


@pytest.mark.parametrize("which", ALL)
def test_no_operation_beats_the_roofline(which):
    """The data sheet's time is at most the predicted time, for every operation."""
    for phase, count, context in (("decode", 64, 4096), ("prefill", 4096, 0)):
        for one in breakdown(configuration(which), phase, count, context):
            assert one.seconds > 0 and 0 <= one.roofline_frac <= 1


@pytest.mark.parametrize(("which", "bits"), [(LATENT, 0), (DENSE, 4)])
def test_what_runs_narrow_is_held_against_the_narrow_roofline(which, bits):
    """MI355X under SGLang: prompts in 8 bits and sums in fewer keep a distance to the data sheet's time."""
    c = configuration(which, "mi355x", name="sglang", tp=8, reduce_bits=bits)
    c = replace(c, precision=replace(c.precision, kv="fp8"))
    for one in breakdown(c, "prefill", 16384, 0):
        assert one.name not in ("attention", "all-reduce") or 0 < one.roofline_frac < 0.95


def test_decode_in_8_bits_is_held_against_the_8_bit_roofline():
    """B200: MLA of a rank with all heads is bound by its products, which reach half of the 8-bit rate."""
    c = configuration(LATENT, "b200_sxm", tp=1, dp=8, ep=8)
    c = replace(c, precision=replace(c.precision, kv="fp8"))
    (attention,) = (one for one in breakdown(c, "decode", 256, 8192) if one.name == "attention")
    assert attention.roofline_frac < 0.75


def test_a_batch_runs_as_the_next_captured_size():
    """Batches between two captured sizes take the larger one's time beside the engine's own."""
    c = with_parameters(configuration(), sequence_s=5e-8, step_hidden_frac=1.0)
    times = step_times(c)
    assert times.decode_s[9] == pytest.approx(times.decode_s[16], rel=1e-9)
    assert times.decode_s[17] > times.decode_s[16]


@given(st.integers(1, 1100))
@settings(max_examples=25)
def test_padding_never_shrinks_a_batch(max_num_seqs):
    """Every batch runs as itself or the next captured size."""
    sizes = padded_sizes(max_num_seqs, True)
    batches = np.arange(1, max_num_seqs + 1)
    assert np.all(sizes[1:] >= batches)
    captured = set(capture_sizes(max_num_seqs))
    assert all(size in captured or size == batch for size, batch in zip(sizes[1:], batches, strict=True))


def test_asynchronous_scheduling_hides_engine_time():
    """The same engine, with and without it, differs by the hidden share of the step's time."""
    c = configuration()
    synchronous = replace(c, engine=replace(c.engine, async_scheduling=False))
    p = c.parameters
    gain = step_times(synchronous).decode_s[1] - step_times(c).decode_s[1]
    assert gain == pytest.approx(p.step_hidden_frac * (p.step_s + p.sequence_s))


@pytest.mark.parametrize("which", ALL)
def test_twice_as_slow_in_both_is_exactly_twice_as_slow(which):
    """Every step of every kind takes twice as long, and a rank without prompts spares twice as much."""
    times = step_times(configuration(which, tp=1, dp=8))
    slow = times.slower(2.0, 2.0)
    batch = np.arange(1, len(times.decode_s))
    assert np.array_equal(
        slow.decode_step_s(batch, 700.0 * batch), 2 * times.decode_step_s(batch, 700.0 * batch)
    )
    steps = (times.tokens, 40.0 * times.tokens, 3e5, 200)
    assert np.array_equal(slow.mixed_step_s(*steps), 2 * times.mixed_step_s(*steps))
    assert slow.group_token_s == 2 * times.group_token_s
    assert times.mixed_row_s > 0 and (times.group_token_s > 0) == (which != DENSE)
    assert (slow.request_s, slow.prompt_token_s) == (times.request_s, times.prompt_token_s)


def test_slower_decoding_alone_leaves_prompts_as_they_are():
    """Of a mixed step only what decoding rows and their context cost grows; the rest grows with prompts."""
    times = step_times(configuration())
    tokens = times.tokens
    alone, rows = times.mixed_step_s(tokens, 1e6), times.mixed_step_s(0.0, 0.0, 5e4, 30) - times.mixed_s[0]
    both = times.mixed_step_s(tokens, 1e6, 5e4, 30)
    assert np.array_equal(times.slower(3.0, 1.0).mixed_step_s(tokens, 1e6), alone)
    assert times.slower(3.0, 1.0).mixed_step_s(tokens, 1e6, 5e4, 30) == pytest.approx(both + 2 * rows)
    assert times.slower(1.0, 3.0).mixed_step_s(tokens, 1e6, 5e4, 30) == pytest.approx(both + 2 * alone)


def test_kernels_of_sparse_and_hyper_connected_layers():
    """An indexer costs more than the attention it spares at short contexts; one engine skips it there."""
    sparse = model("zai-org/GLM-5")
    (part,) = sparse.attention
    dense = replace(sparse, attention=(replace(part, index_heads=0),))
    short, long = (Engine("trtllm", max_model_len=n) for n in (part.sparse_top_k_tokens, 32768))
    assert kernels(sparse, engine=short) == kernels(dense) < kernels(sparse, engine=long) < kernels(sparse)
    mixed = model("deepseek-ai/DeepSeek-V4-Pro")
    assert mixed.residual_streams == 4
    assert kernels(mixed) > kernels(replace(mixed, residual_streams=1)) + 20 * mixed.layers


def test_engines_join_or_split_the_kernels_of_attention_on_some_architectures():
    """Joined, plain and split, in this order; 16-bit weights have nothing to widen."""
    latent, grouped = model("deepseek-ai/DeepSeek-R1"), model("meta-llama/Llama-3.1-8B-Instruct")
    narrow = Narrow(attention=True, dense=True, experts=True)

    def count(which, name, architecture, parts=narrow):
        return kernels(which, parts, Engine(name), architecture)

    joined, split = count(latent, "sglang", "CDNA4"), count(latent, "sglang", "CDNA3")
    plain = count(latent, "vllm", "CDNA3")
    assert joined == count(latent, "atom", "CDNA4") == plain - 4 * latent.layers
    assert split == plain + 8 * latent.layers
    assert plain == count(latent, "sglang", "Hopper") == count(latent, "vllm", "CDNA4")
    assert count(latent, "sglang", "CDNA3", Narrow()) == count(latent, "vllm", "CDNA3", Narrow())
    assert (
        count(grouped, "atom", "CDNA3")
        == count(grouped, "sglang", "Hopper")
        == count(grouped, "vllm", "CDNA3")
    )
    assert count(grouped, "sglang", "CDNA3") == count(grouped, "vllm", "CDNA3") + 3 * grouped.layers

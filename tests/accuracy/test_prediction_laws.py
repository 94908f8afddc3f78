"""Laws of any prediction, on devices, models, engines and layouts that no table has measured.

No number that is not one; nothing faster than reading the weights once or than the matrix units at their
peak; what is harder is slower. Tolerances are for the smooth joints of a fixed point, not for noise.
"""

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moai_planner.accuracy.measurement_table import COLUMNS
from moai_planner.accuracy.measurements import parse_measurements
from moai_planner.accuracy.predict import Predictor, metrics_of
from moai_planner.accuracy.prepare import prepare
from moai_planner.accuracy.recipes import HOLD_STEPS
from moai_planner.accuracy.simulated import MOST_REQUESTS, simulate_runs
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.costmodel import weights
from moai_planner.costmodel.formats import as_stored
from moai_planner.domain.precision import bytes_per_element

DEVICES = (
    "b200_sxm",
    "mi325x",
    "mi308x",
    "a100_sxm_80gb",
    "l40s",
    "h20",
    "gb300_nvl72",
    "h100_sxm",
    "rtx_4090",
)
MODELS = (
    "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-R1",
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen3.5-35B-A3B",
    "meta-llama/Llama-3.2-1B-Instruct",
)
SLACK = 0.12
"""What a fixed point may give back where one limit takes over from another."""
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
lengths = st.sampled_from((100, 300, 1000, 4000, 16_000, 100_000))


@st.composite
def colocated(draw) -> dict:
    tp, dp, pp = (
        draw(st.sampled_from((1, 2, 8))),
        draw(st.sampled_from((1, 1, 4, 8))),
        draw(st.sampled_from((1, 2))),
    )
    devices = tp * dp * pp * draw(st.sampled_from((1, 3)))
    layout = {
        "tp": tp,
        "dp": dp,
        "pp": pp,
        "ep": draw(st.sampled_from((1, tp * dp))),
        "n_accelerators": devices,
    }
    return layout | {"topology": "colocated", "accelerator": draw(st.sampled_from(DEVICES))}


@st.composite
def disaggregated(draw) -> dict:
    names = [draw(st.sampled_from(DEVICES)) for _ in range(2)]
    found = {"topology": "disaggregated", "accelerator": "+".join(names)}
    found["kv_connector"] = draw(st.sampled_from(("nixl", "mori", "host_staged", "unknown")))
    for role, name in zip(("prefill", "decode"), names, strict=True):
        tp, dp = draw(st.sampled_from((1, 4, 8))), draw(st.sampled_from((1, 8)))
        workers = draw(st.integers(1, 8))
        cells = {
            "accelerator": name,
            "workers": workers,
            "tp": tp,
            "dp": dp,
            "ep": draw(st.sampled_from((1, tp * dp))),
        }
        found |= {f"{role}_{key}": value for key, value in cells.items()}
    return found


@st.composite
def runs(draw, layouts=None) -> dict:
    """One row of a table."""
    load = draw(
        st.sampled_from(({"concurrency": 1}, {"concurrency": 2.5}, {"concurrency": 64}, {"concurrency": 4096},
                         {"request_rate": 0.1}, {"request_rate": 50}, {"concurrency": 32, "request_rate": 5}))
    )  # fmt: skip
    return draw(layouts or st.one_of(colocated(), disaggregated())) | load | {
        "id": "row",
        "model": draw(st.sampled_from(MODELS)),
        "precision": draw(st.sampled_from(("", "bf16", "fp8", "mxfp4", "nvfp4", "int4"))),
        "engine": draw(st.sampled_from(("vllm", "sglang", "trtllm", "atom", "tgi"))),
        "spec_decode": draw(st.sampled_from(("none", "none", "mtp", "draft, 3 tokens"))),
        "isl": draw(lengths),
        "osl": draw(st.sampled_from((1, 2, 100, 3000))),
        "length_spread": draw(st.sampled_from(("", "fixed", "uniform 0.8-1.0"))),
    }  # fmt: skip


def predicted(rows: list[dict], accelerator_of=accelerator):
    """The prepared rows, their steady state and their metrics."""
    lines = ["\t".join(str(row.get(name, "")) for name in COLUMNS) for row in rows]
    measurements = parse_measurements("\n".join(["\t".join(COLUMNS), *lines]) + "\n", "t.csv")
    assert not measurements.unsupported
    prepared = prepare(measurements.runs, model, accelerator_of, parameters_for)
    assert not prepared.unsupported, prepared.unsupported
    out = Predictor(prepared).outcomes()
    return prepared, out, metrics_of(prepared, out)


def changed(row: dict, name: str, values) -> list[dict]:
    return [row | {"id": f"row-{i}", name: value} for i, value in enumerate(values)]


def active_parameters(one) -> tuple[float, float]:
    """(parameters, bytes) that one token of a sequence passes through: the chosen experts, no embedding."""
    found = model(one.model.id)
    stored = as_stored(found, one.precision)
    count = bytes_read = 0.0
    for part in found.attention:
        own = part.layers * weights.attention_weights(found.hidden_size, part).per_rank(1, part.kv_heads)
        count, bytes_read = count + own, bytes_read + own * bytes_per_element(stored.attention_weights)
    for part in found.feed_forward:
        routed = (
            part.layers * weights.expert_parameters(found.hidden_size, part) * max(part.experts_per_token, 1)
        )
        form = stored.expert_weights if part.experts else stored.feed_forward_weights
        count, bytes_read = count + routed, bytes_read + routed * bytes_per_element(form)
    return count, bytes_read


@FEW
@given(st.lists(runs(), min_size=6, max_size=6))
def test_no_prediction_beats_physics(rows):
    """Finite, above zero; a token no faster than its weights are read, a run no faster than its products."""
    prepared, out, metrics = predicted([row | {"id": str(i)} for i, row in enumerate(rows)])
    for name, values in metrics.items():
        assert np.isfinite(values).all(), name
        assert (values >= 0).all(), name
    assert (out["e2el_s"] >= out["ttft_s"] * (1 - 1e-9)).all()
    for i, run in enumerate(prepared.runs):
        one = prepared.configurations[prepared.records["decode"][i]]
        count, bytes_read = active_parameters(one)
        engine = one.layout.tp * one.layout.dp
        floor_s = bytes_read / (one.accelerator.memory_bandwidth_bytes_per_s * engine)
        assert out["tpot_s"][i] * out["kept_tokens"][i] >= floor_s * 0.999, run
        peak = sum(max(accelerator(w.accelerator).peak_flop_per_s.values()) * w.devices for w in run.workers)
        assert out["req_per_s"][i] * 2 * count * (run.isl_tokens + run.osl_tokens) <= peak, run
        parameters = one.parameters
        for low, high in ((parameters.low_frac, parameters.high_frac), *parameters.intervals.values()):
            assert 0 < low <= 1 <= high


@FEW
@given(runs())
def test_more_in_flight_waits_longer_and_yields_no_less(row):
    """Concurrency up: latency never falls; throughput never falls beyond a joint.

    Except where prompts wait for one on every rank: more of them end that wait sooner.
    """
    assume(row["engine"] not in HOLD_STEPS or row.get("dp", 1) == 1)
    rows = changed(row | {"request_rate": ""}, "concurrency", (1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096))
    _, _, metrics = predicted(rows)
    assert (np.diff(metrics["e2el_s_mean"]) >= -1e-3 * metrics["e2el_s_mean"][:-1]).all()
    best = np.maximum.accumulate(metrics["output_tps"])
    assert (metrics["output_tps"] >= (1 - 2 * SLACK) * best).all(), metrics["output_tps"]


@FEW
@given(runs())
def test_longer_prompts_and_outputs_take_longer(row):
    """Prompt up: end-to-end time up, requests a second down. Output up: end-to-end time up."""
    for name, values in (("isl", (100, 1000, 4000, 16_000, 100_000)), ("osl", (3, 30, 300, 3000))):
        _, out, metrics = predicted(changed(row, name, values))
        times = metrics["e2el_s_mean"]
        assert (np.diff(times) >= -SLACK * times[:-1]).all(), (name, times)
        assert (np.diff(out["req_per_s"]) <= SLACK * out["req_per_s"][:-1]).all(), (name, out["req_per_s"])


@FEW
@given(runs())
def test_a_faster_device_is_not_slower(row):
    """Twice the bandwidth or twice the peak rates, parameters equal: no later end, no less throughput."""

    def faster(bandwidth: float, peak: float):
        def find(name: str):
            one = accelerator(name)
            return replace(
                one,
                memory_bandwidth_bytes_per_s=one.memory_bandwidth_bytes_per_s * bandwidth,
                peak_flop_per_s={key: value * peak for key, value in one.peak_flop_per_s.items()},
            )

        return find

    _, _, before = predicted([row])
    for factors in ((2.0, 1.0), (1.0, 2.0)):
        _, _, after = predicted([row], faster(*factors))
        assert after["e2el_s_mean"][0] <= before["e2el_s_mean"][0] * (1 + SLACK)
        assert after["output_tps"][0] >= before["output_tps"][0] * (1 - SLACK)


def test_ranks_in_lockstep_wait_for_the_prompts_of_the_others():
    """One sequence a rank meets no prompt of its own, yet all ranks' prompts hold its steps."""
    row = {
        "id": "a",
        "model": MODELS[1],
        "engine": "vllm",
        "topology": "colocated",
        "accelerator": "h200_sxm",
    }
    row |= {"tp": 1, "dp": 8, "ep": 8, "isl": 16_000, "osl": 100, "length_spread": "uniform 0.8-1.0"}
    _, out, _ = predicted(changed(row, "concurrency", (1, 8)))
    assert out["tpot_s"][1] > 3 * out["tpot_s"][0]


def test_a_run_too_large_to_simulate_is_predicted_all_the_same():
    """Millions of requests of a hundred thousand tokens: the steady state answers, at once."""
    row = {
        "id": "a",
        "model": MODELS[2],
        "engine": "vllm",
        "topology": "colocated",
        "accelerator": "h100_sxm",
    }
    row |= {"tp": 8, "isl": 100_000, "osl": 1000, "concurrency": 200_000, "request_rate": 500}
    prepared, _, steady = predicted([row])
    assert prepared.runs[0].requests > MOST_REQUESTS
    assert simulate_runs(prepared, ()) == {}
    assert steady["output_tps"][0] > 0


def test_a_checkpoint_of_two_formats_is_named_by_either():
    """DeepSeek-V4-Pro has experts in four bits, the rest in eight: rows that say one or the other agree."""
    row = {
        "id": "row", "model": "deepseek-ai/DeepSeek-V4-Pro", "engine": "sglang", "isl": 1000, "osl": 100,
        "topology": "colocated", "accelerator": "b200_sxm", "n_accelerators": 8, "tp": 8, "concurrency": 8,
    }  # fmt: skip
    prepared, _, _ = predicted(changed(row, "precision", ("fp8", "mxfp4", "fp4")))
    assert len(prepared.configurations) == 1
    assert prepared.configurations[0].precision.expert_weights == "mxfp4"

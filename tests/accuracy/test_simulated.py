"""Transients and tails through the simulator: agreement with the steady state, saturation, prefixes."""

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.accuracy.measurements import parse_measurements
from moai_planner.accuracy.predict import Predictor, metrics_of, predict
from moai_planner.accuracy.prepare import prepare
from moai_planner.accuracy.simulated import may_preempt, simulate_runs, transient
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.costmodel.serving import step_times_many

HEAD = (
    "id,model,precision,engine,topology,accelerator,n_accelerators,tp,isl,osl,length_spread,concurrency,"
    "request_rate,n_requests,prefix_hit_frac,tpot_ms_p99,notes"
)


def prepared(*rows: str):
    """Rows given as `isl,osl,length_spread,concurrency,request_rate,n_requests,prefix_hit_frac,notes`."""
    lines = []
    for i, row in enumerate(rows):
        *load, notes = row.split(",")
        engine = "meta-llama/Llama-3.1-8B-Instruct,bf16,vllm,colocated,h100_sxm,1,1"
        lines.append(f"{i},{engine},{','.join(load)},1.0,{notes}")
    runs = parse_measurements("\n".join((HEAD, *lines)) + "\n", "rows.csv").runs
    return prepare(runs, model, accelerator, parameters_for)


def simulated(*rows: str):
    p = prepared(*rows)
    return simulate_runs(p, step_times_many(p.configurations))


def steady(*rows: str):
    p = prepared(*rows)
    return metrics_of(p, Predictor(p).outcomes())


def test_low_rate_agrees_with_the_steady_state():
    """Far from saturation a run at a rate is its steady state."""
    row = "1000,200,fixed,,2,1000,,"
    found, expected = simulated(row)[0], steady(row)
    for name in ("ttft_ms_mean", "tpot_ms_mean", "e2el_s_mean", "total_tps"):
        np.testing.assert_allclose(found[name], expected[name][0], rtol=0.03)


def test_overload_grows_with_the_run():
    """Above capacity TTFT grows with the number of requests, and throughput does not."""
    short, long = simulated("2000,200,fixed,,60,600,,", "2000,200,fixed,,60,1200,,").values()
    assert 1.7 < long["ttft_ms_mean"] / short["ttft_ms_mean"] < 2.3
    assert 0.95 < long["total_tps"] / short["total_tps"] < 1.1


def test_requests_that_all_come_at_once_wait_for_each_other():
    """With as many requests as may be in flight the median prompt waits for half of the others, and nothing
    replaces those that end: each meets half the prompts that one of a long run meets."""
    burst, long = "2000,200,fixed,64,,64,,", "2000,200,fixed,64,,2000,,"
    p = prepared(burst, long)
    found = predict(p)
    assert 5 * found["ttft_ms_median"][1] < found["ttft_ms_median"][0]
    assert found["ttft_ms_median"][0] == pytest.approx(found["ttft_ms_mean"][0], rel=0.15)
    assert found["tpot_ms_mean"][0] < found["tpot_ms_mean"][1]
    assert found["tpot_ms_p99"][0] >= found["tpot_ms_mean"][0]


def test_different_requests_are_simulated():
    """Long answers hold their sequences longer than short ones: nothing else tells a token of a mixed run how
    long its context is. As many tokens pass, and the slowest prompt waits longer than the median one."""
    alike, mixed = "500,400,fixed,64,,1000,,", "500,400,cv 0.8,64,,1000,,"
    p = prepared(alike, mixed)
    assert [transient(run) for run in p.runs] == [False, True]
    found = predict(p)
    assert found["total_tps"][1] == pytest.approx(found["total_tps"][0], rel=0.15)
    assert found["tpot_ms_mean"][1] > found["tpot_ms_mean"][0]
    assert found["e2el_s_mean"][1] > found["e2el_s_median"][1] * 1.1
    assert found["e2el_s_mean"][0] == pytest.approx(found["e2el_s_median"][0], rel=0.1)


def test_listed_requests_are_sent_as_they_were():
    """The same requests, listed or alike, give the same figures; their order matters where they differ."""
    alike = prepared("500,400,fixed,64,,120,,").runs[0]
    again = replace(alike, lengths=((500, 400),))
    falling = replace(alike, lengths=tuple((500, 757 - 6 * i) for i in range(120)))
    p = prepare((alike, again, falling), model, accelerator, parameters_for)
    found = predict(p)
    assert found["tpot_ms_mean"][1] == found["tpot_ms_mean"][0]
    assert found["total_tps"][2] == pytest.approx(found["total_tps"][0], rel=0.15)
    assert found["e2el_s_p99"][2] > 1.3 * found["e2el_s_p99"][0]


def test_fewer_than_one_in_flight_is_no_open_door():
    """A third of a request in flight, on average, waits for nobody and gives a third of the tokens; between
    whole numbers throughput lies between theirs."""
    third, one, more, two = (predict_one(f"1000,200,cv 0.8,{c},,60,,") for c in (0.3, 1, 1.5, 2))
    assert third["ttft_ms_mean"] == pytest.approx(one["ttft_ms_mean"], rel=0.2)
    assert third["output_tps"] == pytest.approx(0.3 * one["output_tps"], rel=0.1)
    assert 1.05 * one["output_tps"] < more["output_tps"] < 0.95 * two["output_tps"]


def test_no_time_per_token_where_nobody_has_two():
    """One token each: first answers are predicted, gaps are not; 1.4 each: both."""
    values = predict(prepared("1000,1,fixed,,1,50,,", "1000,1.4,fixed,,1,50,,"))
    assert np.isnan(values["tpot_ms_mean"]).tolist() == [True, False]
    assert np.isnan(values["itl_ms_mean"]).tolist() == [True, False]
    assert (values["ttft_ms_mean"] > 0).all() and values["tpot_ms_mean"][1] > 1.0


def test_uneven_arrivals_wait_longer():
    """Gaps with a fifth of the shape of Poisson's bunch up; even ones do not."""
    p = prepared("1000,200,fixed,,12,400,,")
    waits = []
    for burstiness in (0.2, 1.0, np.inf):
        changed = replace(p, runs=(replace(p.runs[0], burstiness=burstiness),))
        found = simulate_runs(changed, step_times_many(p.configurations))
        waits.append(found[0]["ttft_ms_p99"])
    assert waits[0] > 1.2 * waits[1] > 1.2 * waits[2]


def test_a_rate_with_a_limit_has_tails():
    """Poisson arrivals meet each other, whether or not a limit stands beside the rate."""
    free, limited = predict_one("1000,200,fixed,,12,400,,"), predict_one("1000,200,fixed,200,12,400,,")
    assert limited["ttft_ms_p99"] == pytest.approx(free["ttft_ms_p99"])
    assert limited["ttft_ms_p99"] > 1.3 * limited["ttft_ms_mean"]


def predict_one(row: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in predict(prepared(row)).items()}


def test_a_longer_request_than_fits_does_not_stop_the_others():
    """What was served was held: one prompt of a million tokens among short ones."""
    p = prepared("1000,200,fixed,4,,40,,")
    lengths = ((1_000_000, 200), *((1000, 200),) * 39)
    run = replace(p.runs[0], lengths=lengths, isl_cv=6.0)
    found = simulate_runs(replace(p, runs=(run,)), step_times_many(p.configurations))
    assert found[0]["ttft_ms_median"] < 1000 < found[0]["ttft_ms_p99"]


def test_percentiles_are_in_order():
    """Whichever part of the model a percentile is from."""
    rows = [
        f"{isl},{osl},{spread},{concurrency},{rate},160,{hits},"
        for isl, osl in ((1000, 500), (100, 2))
        for spread in ("fixed", "uniform 0.0-1.0", "cv 0.8")
        for concurrency, rate in ((16, ""), (160, ""), (0.5, ""), ("", 1.6), (16, 20))
        for hits in ("", 0.9)
    ]
    values = predict(prepared(*rows))
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2el_s"):
        ratio = values[f"{name}_p99"] / values.get(f"{name}_median", np.nan)
        assert (ratio[np.isfinite(ratio)] >= 1 - 1e-9).all()
    p90 = values["ttft_ms_p90"]
    known = np.isfinite(p90)
    assert known.any() and (p90 >= values["ttft_ms_median"])[known].all()
    assert (p90 <= values["ttft_ms_p99"])[known].all()


@pytest.mark.parametrize("spread", ["fixed", "cv 0.8"])
def test_more_hits_spare_more(spread):
    """Whatever the lengths: each share of hits answers first sooner than the last."""
    rows = [f"2000,50,{spread},,1,200,{hits}," for hits in ("", 0.3, 0.6, 0.9)]
    waits = [found["ttft_ms_mean"] for found in simulated(*rows).values()]
    assert waits == sorted(waits, reverse=True) and waits[-1] < 0.8 * waits[0]


def test_tails_are_beyond_the_middle_and_repeat():
    """A p99 is no less than its median; the same rows give the same figures."""
    row = "1000,200,uniform 0.8-1.0,32,,320,,"
    p = prepared(row)
    once, twice = predict(p), predict(p)
    assert once["tpot_ms_p99"][0] >= once["tpot_ms_median"][0]
    assert {k: v.tolist() for k, v in once.items()} == {k: v.tolist() for k, v in twice.items()}


def test_preempted_time_counts_as_time_per_token():
    """Where KV binds, sequences wait among their tokens: TPOT is above the steady one."""
    row = "1000,8000,uniform 0.8-1.0,256,,1024,,"
    p = prepared(row)
    assert may_preempt(p.runs[0], p.records[0])
    assert predict(p)["tpot_ms_mean"][0] > 1.1 * steady(row)["tpot_ms_mean"][0]
    assert not may_preempt(*((q := prepared("1000,200,fixed,8,,80,,")).runs[0], q.records[0]))


def test_prefixes_spare_prompts():
    """Shared beginnings lower TTFT, about as far as the steady state says."""
    found = simulated("4000,100,fixed,,2,500,,", "4000,100,fixed,,2,500,0.75,")
    expected = steady("4000,100,fixed,,2,500,,", "4000,100,fixed,,2,500,0.75,")["ttft_ms_mean"]
    ratio = found[1]["ttft_ms_mean"] / found[0]["ttft_ms_mean"]
    np.testing.assert_allclose(ratio, expected[1] / expected[0], rtol=0.1)


def test_repeated_prompts_are_found_in_the_cache():
    """A generator of few prompts: their number and the whole blocks give the share."""
    run = prepared("592,247,,,5,3000,,shared_prefix codegen prefix cache on").runs[0]
    assert transient(run)
    np.testing.assert_allclose(run.prefix_hit_frac, 576 / 592 * (1 - 45 / 3000))

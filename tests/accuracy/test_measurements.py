"""The measurements table: strict, nothing dropped, definitions before predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moai_planner.accuracy.lengths import DIALOGUE_CV
from moai_planner.accuracy.measurements import parse_measurements, read_measurements
from moai_planner.accuracy.prepare import prepare
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.domain.errors import InputError

SMALL = Path(__file__).parent / "small.csv"
HEAD = "id,model,engine,topology,accelerator,tp,dp,pp,isl,osl,concurrency,tpot_ms_mean,split,notes\n"


def test_small_table_is_read_whole():
    """Law: runs and unsupported rows together are the rows of the file."""
    measurements = read_measurements(SMALL)
    rows = len(SMALL.read_text().splitlines()) - 1
    assert len(measurements.runs) + len(measurements.unsupported) == rows
    assert {run.split for run in measurements.runs} == {"calibrate", "validate"}


def test_problems_are_collected_with_their_lines():
    """Every broken cell is named at once."""
    text = HEAD + (
        "a,m,vllm,colocated,h100_sxm,two,1,1,1024,1024,4,9,calibrate,\n"
        "a,m,vllm,sideways,h100_sxm,2,1,1,1024,1024,-4,inf,maybe,\n"
    )
    with pytest.raises(InputError) as caught:
        parse_measurements(text, "t.csv")
    shown = str(caught.value)
    for where in (
        "line 2, tp",
        "line 3, topology",
        "line 3, concurrency",
        "line 3, tpot_ms_mean",
        "line 3, split",
    ):
        assert where in shown
    assert "line 3, id" in shown


def test_a_spread_says_the_mean_lengths_where_no_mean_is_given():
    head = HEAD.replace("split", "isl_mean,osl_mean,length_spread,split")

    def read(means, spread):
        row = f"a,Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,1000,200,4,9,{means},{spread},validate,\n"
        return parse_measurements(head + row, "t.csv").runs[0]

    for spread, middle, shortest in (("uniform 0.8-1.0", 0.9, 0.8), ("uniform 0-1", 0.5, 0), ("fixed", 1, 1)):
        run = read(",", spread)
        assert (run.isl_tokens, run.osl_tokens) == pytest.approx((1000 * middle, 200 * middle))
        assert run.length_low_frac == shortest
        assert any("mean lengths" in what for what in run.assumed) == (middle != 1)
    run = read("910,190", "uniform 0.8-1.0")
    assert (run.isl_tokens, run.osl_tokens) == (910, 190)
    assert not any("mean lengths" in what for what in run.assumed)


@pytest.mark.parametrize(
    ("isl", "spread", "cv"),
    [
        ("1000", "", 0.0),
        ("1000", "cv 0.5", 0.5),
        ("217.4", "", DIALOGUE_CV),
        ("217.4", "uniform 0.8-1.0", 0.0),
        ("217.4", "fixed", 0.0),
    ],
)
def test_a_length_that_is_no_whole_number_is_a_mean_of_different_ones(isl, spread, cv):
    """How they differ is assumed and said, unless the row states it."""
    head = HEAD.replace("split", "length_spread,split")
    row = f"a,Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,{isl},200,4,9,{spread},validate,\n"
    run = parse_measurements(head + row, "t.csv").runs[0]
    assert (run.isl_cv, run.osl_cv) == (cv, cv)
    assert any("dialogues" in what for what in run.assumed) == (cv == DIALOGUE_CV)


@pytest.mark.parametrize(
    "spread",
    [
        *("uniform 512-1024", "uniform 0-0", "uniform 1-0.5", "uniform 0-0.0001", "uniform 80-100"),
        *("cv 0", "cv 0.0001", "cv 5.1", "cv 50", "cv -1", "cv", "normal"),
    ],
)
def test_a_spread_is_in_fractions_of_the_nominal_lengths(spread):
    """Or a deviation; anything else is refused with what can be written."""
    head = HEAD.replace("split", "length_spread,split")
    row = f"a,Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,1000,200,4,9,{spread},validate,\n"
    with pytest.raises(InputError, match=r"length_spread.*above 0 and up to 5"):
        parse_measurements(head + row, "t.csv")


def test_unknown_column_is_refused():
    """A misspelt metric must not be silently ignored."""
    with pytest.raises(InputError, match="tpot_mean"):
        parse_measurements(HEAD.replace("tpot_ms_mean", "tpot_mean"), "t.csv")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("a,m,vllm,colocated,h100_sxm,2,1,1,1024,,4,9,validate,", "isl or osl"),
        ("a,m,vllm,colocated,h100_sxm,2,1,1,1024,1024,,9,validate,", "concurrency nor request_rate"),
        ("a,m,vllm,disaggregated,h100_sxm,2,1,1,1024,1024,4,9,validate,", "layout of the prefill workers"),
    ],
)
def test_rows_without_enough_are_listed_with_a_reason(cells, reason):
    """A row that cannot be predicted is kept beside the runs."""
    measurements = parse_measurements(HEAD + cells + "\n", "t.csv")
    assert not measurements.runs
    assert reason in measurements.unsupported[0].reason


def test_kind_of_run_is_read_from_the_notes():
    """Static batches and offline runs are told by their notes."""
    text = HEAD + "a,m,vllm,colocated,h100_sxm,2,1,1,128,64,8,9,validate,static batch\n"
    run = parse_measurements(text, "t.csv").runs[0]
    assert (run.arrivals, run.requests, run.concurrency) == ("static", 8, 8)


ONE_STEP = "id,model,precision,engine,topology,accelerator,tp,isl,concurrency,itl_ms_mean,output_tps,notes\n"


def test_a_rate_of_one_step_is_its_time_again():
    """A row that gives no output length and the time of one step: its rate is the batch over that time."""
    cells = "a,meta-llama/Llama-3.1-8B-Instruct,bfp8,tt-metal,colocated,{},1,128,32,38.5,831,static batch\n"
    (run,) = parse_measurements(ONE_STEP + cells.format("tt_n150"), "t.csv").runs
    assert run.metrics == {"itl_ms_mean": 38.5} and run.osl_tokens == 2
    assert len(prepare([run], model, accelerator, parameters_for).runs) == 1
    through_vllm = replace(run, workers=(replace(run.workers[0], engine="vllm"),))
    assert prepare([run, through_vllm], model, accelerator, parameters_for).groups == (
        ("tt_n150", "tt-metal", "bfp8"),
        ("tt_n150", "tt-metal", "bfp8"),
    )
    (other,) = parse_measurements(ONE_STEP + cells.format("h100_sxm"), "t.csv").runs
    (left_out,) = prepare([other], model, accelerator, parameters_for).unsupported
    assert "bfp8: engines of platform cuda" in left_out.reason


POOLS = (
    "id,model,engine,topology,accelerator,prefill_workers,prefill_tp,prefill_dp,prefill_ep,"
    "decode_workers,decode_tp,decode_dp,decode_ep,isl,osl,concurrency\n"
    "a,deepseek-ai/DeepSeek-R1,sglang,disaggregated,gb200_nvl72,"
)


def test_a_limit_on_what_is_in_flight_says_how_many_are_sent():
    """Ten a slot where no number is stated, at a rate too; without a limit enough to be steady."""
    text = (
        "id,model,engine,topology,accelerator,tp,isl,osl,concurrency,request_rate,tpot_ms_mean,split\n"
        "a,m,vllm,colocated,h100_sxm,1,1024,1024,32,8,9,validate\n"
        "b,m,vllm,colocated,h100_sxm,1,1024,1024,32,,9,validate\n"
        "c,m,vllm,colocated,h100_sxm,1,1024,1024,,8,9,validate\n"
    )
    assert [run.requests for run in parse_measurements(text, "m.csv").runs] == [320, 320, 1000]


def pools(cells: str):
    """One disaggregated run on GB200, prepared."""
    measurements = parse_measurements(POOLS + cells + ",1024,1024,64\n", "t.csv")
    return measurements.runs[0], prepare(measurements.runs, model, accelerator, parameters_for)


def test_ranks_that_hold_experts_are_devices():
    """Experts over 8 ranks beside tp 1 are eight devices, whatever `dp` says."""
    run, prepared = pools("1,8,1,1,2,1,1,8")
    assert [workers.devices for workers in run.workers] == [8, 16]
    assert prepared.configurations[prepared.records["decode"][0]].layout.ep == 8


def test_a_layout_left_open_that_cannot_hold_the_model_is_not_predicted():
    """One device cannot hold 671 GB; the row leaves the number of ranks open."""
    _, prepared = pools("1,1,4,1,1,1,,1")
    assert not prepared.runs
    assert "data-parallel ranks are not given" in prepared.unsupported[0].reason


def test_room_does_not_bind_where_the_estimate_leaves_none():
    """Four devices stated in full hold it barely: whoever ran it found the room."""
    _, prepared = pools("1,1,4,1,1,1,4,1")
    assert prepared.records["kv_tokens"][0] >= 2049


def test_shared_prompts_with_a_cache_are_found_in_it():
    """A row that says so in words has hits, however it words it; one without a cache has none."""
    row = "a,m,vllm,colocated,h100_sxm,2,1,1,2000,100,64,9,validate,"
    for notes, hits in (("prefix cache on (shared prompts)", True), ("shared prompts; cache off", False)):
        run = parse_measurements(HEAD + row + notes + "\n", "t.csv").runs[0]
        assert (run.prefix_hit_frac > 0.5) == hits


def test_vllm_limits_by_device():
    """A rate without a limit: what the server allows by itself, by the memory of the device."""
    text = (
        "id,model,engine,topology,accelerator,tp,isl,osl,request_rate,n_requests,tpot_ms_mean,split\n"
        "a,meta-llama/Llama-3.1-8B-Instruct,vllm,colocated,h100_sxm,1,100,100,5,500,9,validate\n"
        "b,meta-llama/Llama-3.1-8B-Instruct,vllm,colocated,rtx_4090,1,100,100,5,500,9,validate\n"
    )
    prepared = prepare(parse_measurements(text, "t.csv").runs, model, accelerator, parameters_for)
    assert prepared.records["max_sequences"].tolist() == [1024, 256]
    assert prepared.records["budget_tokens"].tolist() == [8192, 2048]


def test_what_a_row_says_in_other_words_is_noted():
    """Dates and drafting that are not understood are not taken in silence; those that are, are."""
    head = HEAD.replace("split", "date,spec_decode,split")
    row = "{},Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,1000,200,4,9,{},{},validate,\n"
    cells = (
        ("2026-03-01", "mtp"),
        ("2026", '"draft, 3 tokens"'),
        ("Nov 2025", "none"),
        ("01/11/2025", "ngram"),
    )
    text = head + "".join(row.format(i, *each) for i, each in enumerate(cells))
    noted = [
        len([a for a in run.assumed if "n_requests" not in a]) for run in parse_measurements(text, "t").runs
    ]
    assert noted == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("spread", "same"),
    [
        ("Fixed", "fixed"),
        ("CV 0.8", "cv 0.8"),
        ("cv  0.80", "cv 0.8"),
        ("cv0.8", "cv 0.8"),
        ("Uniform 0.8 - 1.", "uniform 0.8-1.0"),
    ],
)
def test_a_spread_may_be_written_freely(spread, same):
    """Spaces and capitals do not matter."""
    head = HEAD.replace("split", "length_spread,split")
    row = "a,Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,1000,200,4,9,{},validate,\n"
    one, other = (parse_measurements(head + row.format(text), "t.csv").runs[0] for text in (spread, same))
    assert replace(one, assumed=()) == replace(other, assumed=())


def test_two_stream_events_a_token_and_no_other_number():
    """A wrong time per token does not rescale its own prediction."""
    head = HEAD.replace("tpot_ms_mean", "tpot_ms_mean,ttft_ms_mean,e2el_s_mean")
    row = "{},Qwen/Qwen3-8B,vllm,colocated,h100_sxm,1,1,1,1000,256,4,{},140,3.2,validate,\n"
    text = head + "".join(row.format(f"r{tpot}", tpot) for tpot in (12.0, 6.0, 4.0, 2.4, 1.2, 0.5))
    runs = parse_measurements(text, "t.csv").runs
    assert [run.events_per_token for run in runs] == [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert any("two stream events" in text for text in runs[1].assumed)


def test_what_no_engine_would_take_is_predicted_with_a_remark():
    """32 heads in three parts, and a model that does not fit: whoever measured them ran them."""
    row = "{},{},vllm,colocated,{},{},1,1,1000,200,4,9,validate,\n"
    text = HEAD + (
        row.format("thirds", "meta-llama/Llama-3.1-8B-Instruct", "h100_sxm", 3)
        + row.format("large", "meta-llama/Llama-3.1-405B-Instruct", "l4", 1)
        + row.format("fits", "meta-llama/Llama-3.1-8B-Instruct", "h100_sxm", 1)
    )
    p = prepare(parse_measurements(text, "t.csv").runs, model, accelerator, parameters_for)
    thirds, large, fits = p.runs
    assert any("tp 3, though" in text for text in thirds.assumed)
    assert any("does not fit" in text for text in large.assumed)
    assert not any("does not fit" in text for text in fits.assumed)


def test_room_for_kv_has_no_steps():
    """One request more in flight changes the room of a rank by what it samples, not by a table's size."""
    row = "{0},deepseek-ai/DeepSeek-R1,sglang,colocated,h200_sxm,8,1,1,1000,200,{0},9,validate,\n"
    text = HEAD + "".join(row.format(concurrency) for concurrency in (1023, 1024, 1025, 1026))
    p = prepare(parse_measurements(text, "t.csv").runs, model, accelerator, parameters_for)
    room = p.records["kv_tokens"]
    assert (np.abs(np.diff(room)) < 0.001 * room[0]).all()

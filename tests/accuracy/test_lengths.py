"""Lengths of requests: the stated mean and deviation, limits, what prompts share, lists."""

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.accuracy.lengths import differ_widely, draw_lengths, listed_cv
from moai_planner.accuracy.measurements import parse_measurements

TABLE = (
    "id,model,engine,topology,accelerator,n_accelerators,tp,isl,osl,length_spread,concurrency\n"
    "r,meta-llama/Llama-3.1-8B-Instruct,vllm,colocated,h100_sxm,1,1,{isl},{osl},{spread},16\n"
)


def run(isl: float = 1000, osl: float = 200, spread: str = "cv 0.8", requests: int = 1000, **changes):
    text = TABLE.format(isl=isl, osl=osl, spread=spread)
    (found,) = parse_measurements(text, "rows.csv").runs
    return replace(found, requests=requests, **changes)


def drawn(of, most: float = 1e6):
    return draw_lengths(of, np.random.default_rng(0), most)


@pytest.mark.parametrize(("isl", "osl", "cv"), [(1000, 200, 0.8), (1000, 200, 2.0), (300, 30, 0.3)])
def test_draws_have_the_mean_and_the_deviation(isl, osl, cv):
    """A thousand requests: the mean to a token in a thousand, the deviation nearly."""
    for lengths, mean in zip(drawn(run(isl, osl, f"cv {cv}")), (isl, osl), strict=True):
        assert lengths.min() >= 1 and lengths.mean() == pytest.approx(mean, rel=0.002)
        assert listed_cv(lengths) == pytest.approx(cv, rel=0.05)


@pytest.mark.parametrize("cv", [0.8, 1.5, 5.0])
@pytest.mark.parametrize("osl", [2, 10])
def test_short_answers_keep_their_mean(osl, cv):
    """No length is below one token, and the others make up for it."""
    _, lengths = drawn(run(osl=osl, spread=f"cv {cv}"))
    assert lengths.min() == 1 and lengths.mean() == pytest.approx(osl, rel=0.01)


def test_no_request_is_longer_than_it_may_be():
    """Prompt and answer share the limit as their means do; means hold."""
    isl, osl = drawn(run(20_000, 500, "cv 2", 400), 131_072)
    assert (isl + osl).max() <= 131_073 and isl.max() > 100_000
    assert isl.mean() == pytest.approx(20_000, rel=0.002) and osl.mean() == pytest.approx(500, rel=0.002)


@pytest.mark.parametrize("hit_frac", [0.3, 0.9, 1.0])
def test_what_prompts_share_is_the_same_for_all(hit_frac):
    """A common beginning as long as the hits say, and ends of their own that have the rest of the mean."""
    isl, _ = drawn(run(prefix_hit_frac=hit_frac))
    assert isl.min() > int(1000 * hit_frac) and isl.mean() == pytest.approx(1000, rel=0.003)


def test_listed_lengths_are_as_they_were_and_judged_by_their_deviation():
    """Listed lengths come in order, again from the start; only different ones need the simulator."""
    listed = run(spread="fixed", requests=5, lengths=((100, 10), (1900, 390)), isl_cv=0.9, osl_cv=0.95)
    isl, osl = drawn(listed)
    assert isl.tolist() == [100, 1900, 100, 1900, 100] and osl.tolist() == [10, 390, 10, 390, 10]
    assert differ_widely(listed) and not differ_widely(replace(listed, isl_cv=0.1, osl_cv=0.1))


def test_draws_repeat():
    """Same run, same lengths; another number of requests, the same mean."""
    first, again, other = drawn(run()), drawn(run()), drawn(run(requests=50))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert other[1].mean() == pytest.approx(first[1].mean(), rel=0.01)

"""Measured tables: what is written is read back, what is wrong is refused with its line."""

import pytest

from moai_planner.domain.errors import InputError
from moai_planner.domain.measured import MeasuredPoint, Shard, StepShape
from moai_planner.profile import table


def _point(shape, seconds=0.01, repeats=4):
    return MeasuredPoint(
        shape, seconds, round(0.9 * seconds, 6), round(1.1 * seconds, 6), 0.02, repeats, 0.001, seconds
    )


DECODE, PREFILL = StepShape("decode", 0, 8, 512), StepShape("prefill", 128, 0, 0)
POINTS = {Shard(): (_point(DECODE), _point(PREFILL, 0.05)), Shard(2): (_point(PREFILL, 0.03),)}
EDGES = {Shard(2): {DECODE: "out of memory"}}
META = {
    "format": table.FORMAT, "accelerator": "cpu", "device": "a processor", "platform": "cpu", "driver": "6.1",
    "engine": "vllm", "engine_version": "0.32.0", "time_basis": "cpu", "threads": 1,
    "models": {"tiny": {"model": "tiny", "precision": "bf16"}},
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    (tmp_path / "tiny.csv").write_text(table.csv_text(POINTS, EDGES))
    (tmp_path / "meta.yaml").write_text(table.meta_text(META))
    return tmp_path / "tiny.csv"


def test_round_trip(path):
    """Law: reading what was written gives the same points and edges, and the same bytes again."""
    profile = table.read_profile(path)
    assert profile.points == POINTS and profile.edges == {Shard(2): (DECODE,)}
    assert (profile.accelerator, profile.engine_version, profile.time_basis) == ("cpu", "0.32.0", "cpu")
    points, edges = table.read_points(path)
    assert table.csv_text(points, edges) == path.read_text()


@pytest.mark.parametrize("lines", range(4))
def test_a_file_cut_short_is_refused(path, lines):
    """Law: every proper prefix of whole lines is refused."""
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[: lines + 1]))
    with pytest.raises(InputError, match="expected '#"):
        table.read_points(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("0.05,", "nan,", "seconds must be a finite number"),
        ("0.05,", "-1,", "seconds must be a finite number"),
        ("0.05,", "fast,", "seconds must be a number"),
        ("prefill,128,0,0,0.05", "prefill,128,4,0,0.05", "do not make a prefill step"),
        ("prefill,128,0,0,0.05", "warmup,128,0,0,0.05", "phase is one of"),
        ("prefill,128,0,0,0.05", "prefill,12.5,0,0,0.05", "tokens must be a whole number"),
        ("1,1,prefill", "0,1,prefill", "tp and ep"),
        ("0.045,", "0.06,", "low_s"),
        ("1,1,prefill,128", "1,1,prefill,128,0", "cells where"),
    ],
)
def test_wrong_cells_are_named_by_line(path, old, new, says):
    """Every wrong cell is refused with file and line."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=says) as caught:
        table.read_points(path)
    assert caught.value.problems[0].field == "line 3"


def test_all_problems_at_once(path):
    """Two wrong lines are two problems."""
    path.write_text(path.read_text().replace(",4,0.001", ",0,0.001").replace("decode,0,8", "decode,0,0", 1))
    with pytest.raises(InputError) as caught:
        table.read_points(path)
    assert len(caught.value.problems) >= 3


def test_the_same_shape_twice_is_refused(path):
    """A table with a doubled row is damaged."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[1], "# 5 rows"]) + "\n")
    with pytest.raises(InputError, match="the same shape twice"):
        table.read_points(path)


@pytest.mark.parametrize(
    "change", [{"format": "other"}, {"time_basis": "sun"}, {"models": []}, {"driver": None}, {"models": {}}]
)
def test_wrong_meta_is_refused(path, change):
    """meta.yaml is checked as strictly as the table."""
    meta = {k: v for k, v in {**META, **change}.items() if v is not None}
    (path.parent / "meta.yaml").write_text(table.meta_text(meta))
    with pytest.raises(InputError):
        table.read_profile(path)


def test_other_versions_do_not_mix(path):
    """A run with another engine version or device is refused, each difference named."""
    with pytest.raises(InputError) as caught:
        table.check_same_device(path, META, {**META, "engine_version": "0.33.0", "device": "another"})
    assert [problem.field for problem in caught.value.problems] == ["device", "engine_version"]


def test_merging_weighs_by_visits_and_keeps_the_wider_noise():
    """Law: merged medians lie between the two, intervals span both, visits add up."""
    a, b = _point(DECODE, 0.010, 6), _point(DECODE, 0.013, 3)
    (merged,) = table.merge_points([a], [b])
    assert merged.seconds == pytest.approx(0.011) and merged.repeats == 9
    assert (merged.low_s, merged.high_s) == (a.low_s, b.high_s)
    assert table.merge_points([a], [_point(PREFILL)]) == (a, _point(PREFILL))

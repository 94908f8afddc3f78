"""A whole run with a stand-in engine: files, merging, refusal, fit."""

from types import SimpleNamespace

import pytest
from profile_models import small_model
from test_profile_run import StandIn

from moai_planner.domain.errors import InputError
from moai_planner.domain.measured import Shard
from moai_planner.profile import ceilings, device, engine, results, run, session, table
from moai_planner.profile.small_models import SMALL_MODELS

HERE = device.Device("cpu", "a processor", "cpu", "", 1, 8e9)
CEILINGS = {"copy_bytes_per_s": 1e10, "matrix_bf16_flop_per_s": 1e11}


@pytest.fixture
def profiled(tmp_path, monkeypatch):
    """Profile with the stand-in engine and write the files; returns outcome and results."""
    version = ["0.32.0"]
    stand_in = SimpleNamespace(start=lambda settings: StandIn(), run_shape=engine.run_shape)
    monkeypatch.setitem(run.RUNNERS, "vllm", stand_in)
    monkeypatch.setattr(device, "require_engine", lambda platform, engine: version[0])
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda platform: CEILINGS)

    def profile(here=HERE, engine_version="0.32.0", date="2026-11-21", **changes):
        version[0] = engine_version
        request = session.Request(
            model="tiny-dense", config=SMALL_MODELS["tiny-dense"], shards=(Shard(), Shard(2)),
            precision="bf16", budget_s=0.0, out=tmp_path, date=date, limits=(128, 4, 128), **changes,
        )  # fmt: skip
        outcome = session.profile_device(request, here, lambda left, note: None)
        found = results.assess_outcome(outcome, lambda config: small_model("tiny-dense"), 0)
        outcome.csv.write_text(table.csv_text(outcome.points, outcome.edges))
        (outcome.csv.parent / "meta.yaml").write_text(table.meta_text(found.meta))
        session.journal_path(outcome).unlink()
        return outcome, found

    return profile


def test_files_are_read_back_with_every_shard(profiled, tmp_path):
    """What a run writes is a profile with points of both shards, a fit and two pictures each."""
    outcome, found = profiled()
    profile = table.read_profile(outcome.csv)
    assert outcome.csv == tmp_path / "cpu/vllm-0.32.0/tiny-dense.csv"
    assert set(profile.points) == {Shard(1), Shard(2)} and profile.points == outcome.points
    entry = table.read_meta(outcome.csv.parent / "meta.yaml")["models"]["tiny-dense"]
    assert set(entry["fit"]) == {"tp1-ep1", "tp2-ep1"} and entry["dates"] == ["2026-11-21"]
    assert len(found.pictures) == 4 and all(svg.startswith("<svg") for svg in found.pictures.values())


def test_a_second_run_is_merged(profiled):
    """Law: visits of both runs add up, shapes stay, both dates are kept."""
    first, _ = profiled()
    second, found = profiled(date="2026-11-22")
    before, after = ({p.shape: p for p in outcome.points[Shard()]} for outcome in (first, second))
    assert before.keys() == after.keys()
    assert all(after[shape].repeats == 2 * before[shape].repeats for shape in before)
    assert found.meta["models"]["tiny-dense"]["dates"] == ["2026-11-21", "2026-11-22"]


def test_another_device_is_refused_before_anything_runs(profiled, monkeypatch):
    """Law: versions and devices are not mixed, and no time is spent before that is said."""
    profiled()
    monkeypatch.setattr(run, "measure", lambda *arguments: pytest.fail("the engine was started"))
    with pytest.raises(InputError) as caught:
        profiled(device.Device("cpu", "another processor", "cpu", "", 1, 8e9))
    assert [problem.field for problem in caught.value.problems] == ["device"]


def test_another_engine_version_has_a_folder_of_its_own(profiled):
    """Two versions lie side by side."""
    first, second = profiled()[0], profiled(engine_version="0.33.0")[0]
    assert first.csv.parent.name == "vllm-0.32.0" and second.csv.parent.name == "vllm-0.33.0"


def test_replace_starts_anew(profiled):
    """With --replace the old points are gone."""
    profiled()
    second, _ = profiled(replace=True)
    assert {p.repeats for p in second.points[Shard()]} == {3}


def test_a_format_the_engine_cannot_make_is_refused(profiled):
    """An unknown precision is an input error, not a crash."""
    with pytest.raises(InputError, match="--precision"):
        session.quantization(
            session.Request("m", SMALL_MODELS["tiny-dense"], (Shard(),), "mxfp4", 1.0, None, "2026-11-21")
        )

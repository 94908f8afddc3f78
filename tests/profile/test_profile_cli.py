"""The command line without an engine: dry runs, and every problem in the flags at once."""

import json

import pytest

from moai_planner.cli.profile import profile
from moai_planner.cli.profiled_config import named_config
from moai_planner.domain.errors import InputError
from moai_planner.profile import device, sweep

DEFAULTS = {
    "model": "dense-100m", "engine": "vllm", "accelerator": "cpu", "tp": "1", "ep": 1, "layers": 0,
    "precision": "bf16",
    "budget": "15m", "name": "", "max_tokens": 0, "max_batch": 0, "max_context": 0, "date": "2026-11-21",
    "seed": 0, "eager": False, "replace": False, "finish": False, "dry_run": True, "serve": False,
    "as_json": True,
}  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch):
    here = device.Device("cpu", "a processor", "cpu", "", 1, 8e9)
    monkeypatch.setattr(device, "detect", lambda: here)
    return lambda **flags: profile(out=tmp_path, **{**DEFAULTS, **flags})


def test_dry_run_lists_the_coarse_sweep(call, capsys):
    """The printed points are the sweep's, each shard's, with a duration."""
    call(tp="1,2")
    shown = json.loads(capsys.readouterr().out)
    grid = sweep.coarse_grid(sweep.Limits(2048, 32, 2048, 1 << 62, False))
    assert len(shown["points"]) == 2 * len(grid) and all(p["expected_s"] > 0 for p in shown["points"])
    assert shown["expected_grid_s"] > 0 and shown["budget_s"] == 900


def test_dry_run_for_a_device_that_is_elsewhere(call, capsys):
    """A sweep for a GPU can be planned on a machine without one, from a shipped model."""
    call(model="gpt-oss-120b", accelerator="h200_sxm", tp="1,8", precision="mxfp4")
    shown = json.loads(capsys.readouterr().out)
    assert shown["device"] == "not here" and max(p["batch"] for p in shown["points"]) == 256


def test_measuring_for_a_device_that_is_elsewhere_is_refused(call):
    """Law: no time is ever filed under a device that it was not measured on."""
    with pytest.raises(InputError, match="would run on a processor"):
        call(accelerator="h200_sxm", dry_run=False)


def test_all_problems_in_the_flags_at_once(call):
    """Each wrong flag is one problem."""
    with pytest.raises(InputError) as caught:
        call(model="nope", tp="0,x", ep=2, budget="soon", date="today", max_batch=-1, layers=-1)
    files = {problem.file for problem in caught.value.problems}
    assert files >= {"--model", "--tp", "--ep", "--budget", "--date", "--max-batch", "--layers"}


@pytest.mark.parametrize("flags", [{"engine": "torch"}, {"finish": True}])
def test_a_closed_loop_needs_an_engine_that_serves(call, flags):
    """`--serve` with what starts no server is refused before anything runs, in one message."""
    with pytest.raises(InputError) as caught:
        call(serve=True, dry_run=False, **flags)
    assert [problem.file for problem in caught.value.problems] == ["--serve"]


def test_a_model_by_any_of_its_names(tmp_path):
    """Made for measuring, shipped (with the keys of the model it is the same as), a folder, a file in it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 64}')
    for reference in (folder, folder / "config.json"):
        assert named_config(str(reference)) == ("mine", {"hidden_size": 64})
    assert named_config("dense-100m")[0] == "dense-100m"
    for shipped in ("gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct"):
        name, config = named_config(shipped)
        assert name == shipped.rpartition("/")[2] and config["hidden_size"] > 0
        assert not {"same_as", "source"} & config.keys()


def test_without_an_engine_one_line_says_how_to_install_it(call, monkeypatch):
    """No vLLM: exit 2 with the command for this device."""
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        call(dry_run=False)
    assert str(caught.value).count("\n") == 0 and "engine/install.sh" in str(caught.value)


def test_a_broken_config_is_refused(call, tmp_path):
    """A config.json that is none is named."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        call(model=str(tmp_path / "config.json"))

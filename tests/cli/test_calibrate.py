"""`calibrate` on the smallest tables: an answer or a remedy, never a traceback."""

import pytest
from typer.testing import CliRunner

from moai_planner.catalog import paths
from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError

HEAD = "id,model,engine,topology,accelerator,tp,isl,osl,concurrency,tpot_ms_mean,split\n"
ROW = "a,openai/gpt-oss-120b,vllm,colocated,h100_sxm,2,1024,1024,4,9,calibrate\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD, "at least one run"),
        (HEAD + ROW.replace("calibrate", "validate"), "split = calibrate"),
        (HEAD + ROW.replace("h100_sxm", "h100_sxn"), "none of them predictable"),
        (HEAD + ROW.replace(",9,", ",,"), "none that a fit can use"),
    ],
)
def test_tables_without_anything_to_fit(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    outcome = CliRunner().invoke(app, ["calibrate", str(tmp_path / "t.csv"), "--out", str(tmp_path)])
    assert isinstance(outcome.exception, InputError)
    assert words in str(outcome.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("state", [None, "", "[1, 2]", '{"digest": 3}'])
def test_one_row_is_enough_and_a_foreign_state_is_forgotten(tmp_path, state):
    """What a broken run left behind does not stop the next one; the result is the same."""
    (tmp_path / "t.csv").write_text(HEAD + ROW)
    out = tmp_path / "out"
    out.mkdir()
    if state is not None:
        (out / ".calibration.json").write_text(state)
    outcome = CliRunner().invoke(app, ["calibrate", str(tmp_path / "t.csv"), "--out", str(out)])
    assert outcome.exit_code == 0, outcome.exception
    assert sorted(path.name for path in out.iterdir()) == ["h100_sxm_vllm_mxfp4.yaml", "shared.yaml"]


def test_the_set_that_predictions_use_is_kept_when_it_is_replaced(tmp_path, monkeypatch):
    """Without --out: said before the fit starts, the set of before beside it, other sets untouched."""
    (tmp_path / "t.csv").write_text(HEAD + ROW)
    parameters = tmp_path / "hardware_profiles" / "parameters"
    (parameters / "calibrated").mkdir(parents=True)
    before = {"shared.yaml": "old: shared\n", "mi300x_vllm_fp8.yaml": "old: other\n"}
    for name, text in before.items():
        (parameters / "calibrated" / name).write_text(text)
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    outcome = CliRunner().invoke(app, ["calibrate", str(tmp_path / "t.csv")])
    assert outcome.exit_code == 0, outcome.exception
    said = outcome.stderr
    assert said.index("replaces the calibrated set") < said.index("others there stay")
    kept = {path.name: path.read_text() for path in (parameters / "calibrated.before").iterdir()}
    now = {path.name: path.read_text() for path in (parameters / "calibrated").iterdir()}
    assert kept == before
    assert now["mi300x_vllm_fp8.yaml"] == "old: other\n" and now["shared.yaml"] != "old: shared\n"
    assert sorted(now) == ["h100_sxm_vllm_mxfp4.yaml", "mi300x_vllm_fp8.yaml", "shared.yaml"]

"""`calibrate` on the smallest tables: an answer or a remedy, never a traceback."""

import pytest
from typer.testing import CliRunner

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

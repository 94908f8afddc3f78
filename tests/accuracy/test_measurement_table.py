"""The text of a measurements table: what is read all the same, what is refused, and in which words."""

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moai_planner.accuracy.measurement_table import parse_table, read_table
from moai_planner.accuracy.measurements import parse_measurements
from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError

HEAD = (
    "id,model,engine,topology,accelerator,tp,isl,osl,concurrency,"
    "tpot_ms_mean,ttft_ms_mean,e2el_s_mean,split\n"
)
ROW = "a,openai/gpt-oss-120b,vllm,colocated,h100_sxm,2,1024,1024,4,9,100,9.3,validate\n"


def row(**changes) -> str:
    cells = dict(zip(HEAD.strip().split(","), ROW.strip().split(","), strict=True)) | changes
    return ",".join(map(str, cells.values())) + "\n"


def problems(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_table(text, "t.csv")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "content",
    [
        ("\ufeff" + HEAD + ROW).encode(),
        (HEAD + ROW).replace("\n", "\r\n").encode(),
        (HEAD + ROW).replace(",", " , ").encode(),
        (HEAD + ROW).replace(",", "\t").encode(),
        (
            HEAD.upper() + row(engine="vLLM", topology="Colocated", split="Validate", accelerator="H100_SXM")
        ).encode(),
        (HEAD + "\n" + ROW + "\n,,,,,,,,,,,,\n").encode(),
        gzip.compress((HEAD + ROW).encode(), mtime=0),
    ],
    ids=["mark", "windows", "spaces", "tabs", "capitals", "blank lines", "gzip"],
)
def test_the_same_table_in_other_clothes(tmp_path, content):
    """Nothing is lost by reading these, whatever the file is called."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert dict(table.rows[0].cells) == dict(parse_table(HEAD + ROW, "t.csv").rows[0].cells)


def test_columns_of_ones_own_are_left_aside_and_named():
    table = parse_table(HEAD.replace("split", "split,rack") + ROW.replace("validate", "validate,7"), "t.csv")
    assert table.ignored == ("rack",)


def test_a_misspelt_column_is_refused_with_its_name():
    """It is a metric that would silently not be compared."""
    assert problems(HEAD.replace("tpot_ms_mean", "tpot_mean") + ROW) == [
        "t.csv: line 1: tpot_mean (did you mean tpot_ms_mean? rename or remove this column)"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty file"),
        (" \n\n", "empty file"),
        (HEAD, "at least one run"),
        ((HEAD + ROW).replace(",", ";"), "separated by ;"),
        (HEAD.replace("model,", "") + ROW, "add the column model"),
        (HEAD + "a,b\n", "(13, not 2)"),
        (HEAD + ROW.strip() + ",x\n", "(13, not 14)"),
        (HEAD.replace("isl,osl", "isl,isl") + ROW, "once"),
        (HEAD + 'a,"' + "x" * 200_000 + "\n", "field larger"),
        (HEAD + row(id="a\0b"), "control characters"),
        (HEAD + ROW + ROW, "line 2 has it"),
        (HEAD + row(topology="sideways"), "colocated or disaggregated"),
        (HEAD + row(e2el_s_mean=9300), "ttft + tpot x (osl - 1) is 9.307 s"),
        (HEAD + row(ttft_ms_mean=0.1, tpot_ms_mean=0.009), "milliseconds"),
        (HEAD + row(ttft_ms_mean=0.1, tpot_ms_mean=0.009, e2el_s_mean=9300), "milliseconds"),
    ],
)
def test_what_is_refused_and_why(text, words):
    assert any(words in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nan", "finite"),
        ("inf", "finite"),
        ("-1", "above 0"),
        ("0", "above 0"),
        ("1e400", "finite"),
        ("1e300", "up to"),
        ("4k", "without a unit"),
        ("9 ms", "without a unit"),
        ("1_000", "write 1000"),
        ('"1,024"', "write 1024"),
        ("\u0663", "finite"),
        ("0x10", "finite"),
    ],
)
def test_numbers_that_are_none(value, words):
    """Every one with its line, column, value and remedy."""
    (found,) = problems(HEAD + ROW + row(id="b", isl=value))
    assert found.startswith("t.csv: line 3, isl")
    assert words in found


def test_all_problems_at_once():
    found = problems(HEAD + row(tp="two", isl="-1") + row(split="maybe") + "short,row\n")
    assert [problem.split(" ")[2].rstrip(":,") for problem in found] == ["2", "2", "3", "3", "4"]


@pytest.mark.parametrize(
    ("changes", "concurrency"),
    [({"concurrency": 2.5}, 2.5), ({"concurrency": 0.5}, 0.5), ({"concurrency": 64}, 64)],
)
def test_a_mean_number_in_flight_may_be_a_fraction(changes, concurrency):
    assert parse_measurements(HEAD + row(**changes), "t.csv").runs[0].concurrency == concurrency


def test_no_more_in_flight_than_requests():
    text = HEAD.replace("split", "split,n_requests") + ROW.replace("4,9,", "64,9,").replace(
        "validate", "validate,8"
    )
    assert parse_measurements(text, "t.csv").runs[0].concurrency == 8


def test_an_offline_run_queues_all_its_requests():
    """Without a concurrency all of them are in flight; without a number, enough to saturate."""
    text = HEAD.replace("split", "split,notes,n_requests") + row(concurrency="").replace(
        "validate", "validate,offline,300"
    )
    assert parse_measurements(text, "t.csv").runs[0].concurrency == 300
    run = parse_measurements(text.replace("300", ""), "t.csv").runs[0]
    assert run.concurrency == run.requests > 100


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accelerator": "h100_sxn"}, "did you mean h100_sxm"),
        ({"accelerator": "NVIDIA H200"}, "did you mean h200_sxm"),
        ({"model": "openai/gpt-oss-120c"}, "did you mean openai/gpt-oss-120b"),
        ({"accelerator": "h100_sxm+mi300x"}, "more than one kind"),
    ],
)
def test_unknown_names_are_listed_with_near_ones(tmp_path, changes, reason):
    """The other rows are still predicted."""
    path = tmp_path / "t.csv"
    path.write_text(HEAD + ROW + row(id="b", **changes))
    outcome = CliRunner().invoke(app, ["validate", str(path)])
    assert outcome.exit_code == 0
    assert reason in " ".join(outcome.stdout.split())
    assert "2 rows: 1 predicted, 1 not." in outcome.stdout


def test_what_was_left_aside_is_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        HEAD.replace("split", "split,rack,spec_decode,tpot_ms_p99")
        + row(engine="vlm").replace("validate", "validate,7,mtp,12")
    )
    outcome = CliRunner().invoke(app, ["validate", str(path), "--json"])
    for words in ("nothing here reads: rack", "engine vlm", "did you mean vllm?", "tpot_ms_p99 (1)"):
        assert words in outcome.stderr


def test_flags_are_checked_together(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEAD + ROW)
    flags = ("--on", "h100", "--split", "x", "--tolerance", "y", "--precision", "fp9")
    error = CliRunner().invoke(app, ["validate", str(path), *flags]).exception
    assert isinstance(error, InputError)
    assert len(error.problems) == 4


def test_a_split_that_no_row_has(tmp_path):
    path = Path(tmp_path / "t.csv")
    path.write_text(HEAD + ROW)
    error = CliRunner().invoke(app, ["validate", str(path), "--split", "calibrate"]).exception
    assert "there is validate" in str(error)


@pytest.mark.parametrize("name", ["runs.csv", "result.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe\x80", "not UTF-8 text"),
        (gzip.compress(b"id,model", mtime=0)[:-4], "end-of-stream"),
        (None, "No such file"),
    ],
    ids=["bytes", "cut gzip", "missing"],
)
def test_files_that_hold_no_text_are_refused_with_what_was_wanted(tmp_path, name, content, reason):
    """Tables and result files alike: one problem, with the file, the reason and the remedy."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(app, ["validate", str(path)], catch_exceptions=True)
    problems = result.exception.problems
    wanted = "table, .csv" if name == "runs.csv" else "JSON result file"
    assert len(problems) == 1 and problems[0].file == str(path)
    assert reason in problems[0].value and wanted in problems[0].remedy

"""Bad input through the command itself: all problems at once, exit 2, nothing written, no traceback."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from moai_planner.catalog.capacity import read_capacity
from moai_planner.catalog.paths import data_root
from moai_planner.cli.main import run
from moai_planner.cli.output import write_bytes
from moai_planner.domain.errors import InputError
from moai_planner.emit.publish import publish

LONG = "x" * 300
"""No file system takes a name this long; asking whether it exists must not fail."""


@pytest.fixture
def moai_plan(monkeypatch, capfd, tmp_path):
    """The command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moai-plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            run()
        sys.stdout.flush()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return stopped.value.code or 0, out, err

    return call


def capacity(pool: dict | None = None, deployment: dict | None = None, **top) -> dict:
    return {
        "format": "moai-capacity/1",
        "cluster": {
            "pools": [
                {"name": "h100", "accelerator": "h100_sxm", "nodes": 1, "devices_per_node": 8} | (pool or {})
            ]
        },
        "deployments": [
            {
                "name": "chat",
                "model": "openai/gpt-oss-120b",
                "trace": "azure_2023_conv",
                "slo": {"ttft_p95": "2 s"},
            }
            | (deployment or {})
        ],
    } | top


def write(document: dict, path: str = "capacity.yaml") -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(yaml.safe_dump(document))
    return path


def test_all_problems_of_a_file_in_one_message(moai_plan):
    document = capacity(
        {"nodes": 0, "nodez": 1, "network": "3.35 TB", "price": "-1 USD/h", "accelerator": "h1000"},
        {"slo": {"ttft_p95": "2 GB", "foo_p95": "1 s", "tpot_p95": float("nan")}, "windows": "some"},
        objective="leastcost",
    )
    code, out, err = moai_plan("solve", write(document), "--out", "plan.json")
    assert (code, out) == (2, "")
    assert "10 problems" in err
    for word in (
        "did you mean nodes?",
        "3.35 TB/s",
        "h100_sxm",
        "'foo' is not a latency",
        "least-cost",
        "auto",
    ):
        assert word in err
    assert not Path("plan.json").exists()


@pytest.mark.parametrize("ending", ["", ".yaml", ".json"])
@pytest.mark.parametrize(("part", "key"), [(0, "accelerator"), (1, "model"), (1, "trace")])
def test_a_name_too_long_for_any_file_is_an_unknown_name(moai_plan, part, key, ending):
    entries = [{}, {}]
    entries[part][key] = LONG + ending
    assert moai_plan("solve", write(capacity(*entries)))[0] == 2


def test_flags_beside_a_file_keep_the_bounds_of_the_file(moai_plan):
    flags = ("--seed", "-1", "--gap", "200%", "--time-limit", "0 s")
    code, _, err = moai_plan("solve", write(capacity()), *flags)
    assert code == 2
    assert "3 problems" in err


@pytest.mark.parametrize("out", [".", "nowhere/plan.json", LONG])
def test_an_unwritable_output_is_told_before_the_work(moai_plan, out):
    code, _, err = moai_plan("solve", write(capacity()), "--out", out)
    assert code == 2
    assert "solving" not in err
    assert [path.name for path in Path().iterdir()] == ["capacity.yaml"]


def test_writing_to_a_pipe_does_not_replace_it(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(pipe, b"plan")
    assert os.read(reader, 9) == b"plan"
    os.close(reader)
    assert pipe.is_fifo()


def test_files_beside_the_capacity_file_are_found_and_digested(tmp_path, monkeypatch):
    """A description decides a trace as much as its data; `~` and the file's own folder both work."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    shutil.copy(data_root() / "hardware_profiles" / "h100_sxm.yaml", tmp_path / "in" / "mine.yaml")
    rows = "".join(f"{second},100,10\n" for second in range(60))
    (tmp_path / "data.csv").write_text("arrival_s,isl_tokens,osl_tokens\n" + rows)
    (tmp_path / "in" / "described.yaml").write_text("data: ../data.csv\nduration: 60 s\n")
    beside = capacity({"accelerator": "mine.yaml"}, {"trace": "described.yaml"})
    home = capacity({"accelerator": "mine.yaml"}, {"trace": "~/data.csv"})
    named = []
    for document in (beside, home):
        path = tmp_path / "in" / "capacity.yaml"
        path.write_text(yaml.safe_dump(document))
        named.append({Path(name).name for name, _ in read_capacity(path).inputs})
    assert named[0] >= {"described.yaml", "data.csv"}
    assert named[1] >= {"data.csv", "capacity.yaml"}


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf"])
def test_a_rate_scale_without_meaning(moai_plan, factor):
    code, _, err = moai_plan("simulate", "plan.json", "--rate-scale", factor)
    assert code == 2
    assert "--rate-scale" in err


def test_publishing_under_a_name_too_long_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="long"):
        publish((), tmp_path / LONG)
    assert not list(tmp_path.iterdir())


def test_a_plan_that_found_nothing_is_a_no_for_every_verb(moai_plan):
    """What `solve` writes when the answer is no can be read again, and is a no there too."""
    tight = write(capacity(deployment={"slo": {"ttft_p95": "1 us"}}))
    assert moai_plan("solve", tight, "--out", "plan.json")[0] == 3
    for verb in (("emit", "plan.json", "--out", "deploy"), ("simulate", "plan.json")):
        code, out, err = moai_plan(*verb)
        assert (code, out) == (3, "")
        assert "the plan is infeasible" in err
    assert not Path("deploy").exists()


def test_interrupting_ends_with_130_and_a_word(moai_plan, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("moai_planner.catalog.capacity.read_capacity", interrupt)
    code, out, err = moai_plan("solve", "capacity.yaml", "--out", "plan.json")
    assert (code, out) == (130, "")
    assert "nothing half-written" in err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("arguments", [("estimate", LONG, "--on", "h100"), ("estimate", "x", "--on", LONG)])
def test_long_names_in_flags(moai_plan, arguments):
    assert moai_plan(*arguments)[0] == 2


def test_a_cluster_too_small_is_explained(moai_plan):
    """Exit 3, what stands in the way and what would help; and no word of a simulation that never ran."""
    small = write(capacity({"devices_per_node": 1}, {"model": "deepseek-ai/DeepSeek-R1"}))
    code, out, err = moai_plan("solve", small, "--out", "plan.json")
    assert code == 3
    assert "no: there is no plan" in err
    assert "the weights do not fit" in out
    assert "more or larger devices" in " ".join(out.split())
    assert "Simulated" not in out
    assert "was not given" not in out


def test_an_accelerator_of_ones_own_is_planned_and_simulated(moai_plan):
    """Requests all alike at an even pace, too: nobody waits, and nothing is divided by that."""
    write(capacity({"accelerator": "mine.yaml"}, {"trace": "even.csv"}), "in/capacity.yaml")
    shutil.copy(data_root() / "hardware_profiles" / "h100_sxm.yaml", "in/mine.yaml")
    rows = "".join(f"{second},100,10\n" for second in range(60))
    Path("in/even.csv").write_text("arrival_s,isl_tokens,osl_tokens\n" + rows)
    code, _, err = moai_plan("solve", "in/capacity.yaml", "--out", "plan.json")
    assert code == 0, err
    assert "Warning" not in err
    assert moai_plan("simulate", "plan.json")[0] == 0

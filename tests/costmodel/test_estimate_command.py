"""`moai-plan estimate`: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json

import pytest

from moai_planner.domain.provenance import Basis
from tests.costmodel.estimate_verb import estimate

LLAMA = "meta-llama/Llama-3.3-70B-Instruct"


def test_one_json_document(capsys, monkeypatch):
    """Memory adds up, intervals hold the value, operations add up to the decode step."""
    code, out, _ = estimate(
        capsys, monkeypatch, LLAMA, "--on", "h100", "--tp", "4", "--precision", "fp8", "--json"
    )
    found = json.loads(out)
    memory = found["memory"]
    assert code == 0 and found["fits"] and found["devices"] == 4
    assert found["kv_bytes_per_token"] == 4 * memory["kv_bytes_per_token"] == 2 * 80 * 8 * 128 * 2
    for interval in found["predicted"].values():
        assert 0 < interval["low"] <= interval["value"] <= interval["high"]
        assert interval["basis"] in set(Basis)
    parts = sum(one["seconds"] for one in found["decode_operations"])
    assert parts == pytest.approx(found["predicted"]["decode_step_s"]["value"], rel=1e-6)


def test_same_question_same_bytes(capsys, monkeypatch):
    """No clock, host or random number in the answer."""
    arguments = ("openai/gpt-oss-120b", "--on", "mi300x", "--tp", "2", "--json")
    assert estimate(capsys, monkeypatch, *arguments) == estimate(capsys, monkeypatch, *arguments)


def test_tables_for_people(capsys, monkeypatch):
    """Memory, predictions and operations are shown."""
    code, out, _ = estimate(
        capsys, monkeypatch, "openai/gpt-oss-120b", "--on", "h200_sxm", "--dp", "8", "--ep", "8"
    )
    assert code == 0
    for expected in ("Memory of one device", "time per output token", "expert dispatch", "of roofline"):
        assert expected in out


def test_higher_confidence_is_wider(capsys, monkeypatch):
    """95 % holds 80 %."""
    wide, narrow = (
        json.loads(
            estimate(capsys, monkeypatch, LLAMA, "--on", "h200", "--tp", "8", "--confidence", c, "--json")[1]
        )
        for c in ("0.95", "0.8")
    )
    assert wide["predicted"]["tpot_s"]["high"] > narrow["predicted"]["tpot_s"]["high"]
    assert wide["predicted"]["tpot_s"]["value"] == narrow["predicted"]["tpot_s"]["value"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((LLAMA, "--on", "h100_sxm"), "does not fit"),
        (("deepseek-ai/DeepSeek-R1", "--on", "h100_sxm", "--tp", "8"), "does not fit"),
        (
            (
                LLAMA,
                "--on",
                "h100_sxm",
                "--tp",
                "4",
                "--precision",
                "fp8",
                "--batch",
                "250",
                "--context",
                "30000",
            ),
            "KV",
        ),
    ],
)
def test_the_answer_is_no(capsys, monkeypatch, arguments, says):
    """What cannot be held exits with 3 and says why; the memory is still shown."""
    code, out, err = estimate(capsys, monkeypatch, *arguments)
    assert code == 3 and says in err and "weights" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((LLAMA, "--on", "h1000"), ["h100_sxm"]),
        (("meta-llama/Llama-3.3-70B-Instuct", "--on", "h100"), ["Llama-3.3-70B-Instruct"]),
        ((LLAMA, "--on", "h100", "--tp", "3"), ["tp", "64 query heads"]),
        ((LLAMA, "--on", "h100", "--tp", "0", "--isl", "0", "--osl", "-5"), ["--tp", "--isl", "--osl"]),
        ((LLAMA, "--on", "h100", "--precision", "fp9", "--kv-dtype", "int3"), ["--kv-dtype", "fp9"]),
        ((LLAMA, "--on", "h100", "--isl", "200000"), ["131072"]),
        ((LLAMA, "--on", "h100", "--tp", "8", "--ep", "8"), ["no experts"]),
        ((LLAMA, "--on", "h100", "--gpu-memory-utilization", "5"), ["--gpu-memory-utilization"]),
        ((LLAMA, "--on", "h100", "--confidence", "nan"), ["--confidence"]),
        ((LLAMA, "--on", "h100", "--network", "3.35 TB"), ["--network", "bytes_per_s"]),
        ((LLAMA, "--on", "h100", "--batch", "900"), ["--max-num-seqs"]),
        ((LLAMA, "--on", "h100", "--tp", "8", "--pp", "2", "--nodes", "1"), ["--nodes"]),
        ((LLAMA, "--on", "h100", "--engine", "vlm"), ["vllm"]),
        (("/nowhere/config.json", "--on", "h100"), ["/nowhere/config.json"]),
        (("foo", "--on", "bar", "--isl", "0"), ["foo", "bar", "--isl"]),
    ],
)
def test_wrong_input_is_named(capsys, monkeypatch, arguments, named):
    """Exit code 2, every problem in one message, nothing on stdout, no traceback."""
    code, out, err = estimate(capsys, monkeypatch, *arguments)
    assert code == 2 and out == ""
    assert all(word in err for word in named)
    assert "Traceback" not in err

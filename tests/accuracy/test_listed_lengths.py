"""Results of `vllm bench serve --save-detailed`: lists of lengths, failed requests, odd totals."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from moai_planner.accuracy.predict import predict
from moai_planner.accuracy.prepare import prepare
from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.models import model
from moai_planner.catalog.parameters import parameters_for
from moai_planner.cli.main import app
from moai_planner.domain.errors import InputError
from tests.accuracy.test_result_files import ISL, OSL, REQUESTS, read, vllm


def test_requests_that_are_listed_are_taken_one_by_one(tmp_path):
    """`--save-detailed` lists them; those that failed generated nothing."""
    prompts, outputs = [900, 1100, 500, 1000], [400, 600, 0, 500]
    sums = {"total_input_tokens": 3000, "total_output_tokens": 1500, "completed": 3, "max_concurrency": 2}
    run = read(vllm(input_lens=prompts, output_lens=outputs, **sums), tmp_path)
    assert run.lengths == ((900, 400), (1100, 600), (1000, 500))
    assert run.requests == 3
    assert read(vllm(input_lens=prompts, output_lens=[], **sums), tmp_path).lengths == ()


def listed(prompts: list, outputs: list) -> dict:
    return vllm(input_lens=prompts, output_lens=outputs)


def test_equal_listed_lengths_say_nothing_new(tmp_path):
    """`--save-detailed` of equal requests is predicted as `--save-result` of them."""
    detailed, saved = (
        predict(prepare((run,), model, accelerator, parameters_for))
        for run in (
            read(listed([ISL] * REQUESTS, [OSL] * REQUESTS), tmp_path),
            replace(read(vllm(), tmp_path), equal_lengths=True),
        )
    )
    assert {name: float(value[0]) for name, value in detailed.items()} == {
        name: pytest.approx(float(value[0]), nan_ok=True) for name, value in saved.items()
    }


@pytest.mark.parametrize(
    ("prompts", "outputs", "words"),
    [
        ([ISL] * REQUESTS, [OSL] * 159 + [3_000_000_000], "output_lens[159]: 3000000000"),
        ([1e30] * REQUESTS, [OSL] * REQUESTS, "input_lens[0]"),
        ([-5] * REQUESTS, [OSL] * REQUESTS, "input_lens[0]: -5"),
        ([ISL] * REQUESTS, ["500"] * REQUESTS, "output_lens[0]: '500'"),
        ([ISL] * REQUESTS, [OSL] * 100, "output_lens: 100 entries"),
        ([10] * REQUESTS, [OSL] * REQUESTS, "input_lens: 1600 tokens in all"),
        ([ISL] * 10, [OSL] * 10, "input_lens: 10000 tokens in all"),
    ],
)
def test_listed_lengths_that_cannot_be(tmp_path, prompts, outputs, words):
    """Entries that are no lengths, and lists that contradict the totals: named, with what to give."""
    with pytest.raises(InputError) as raised:
        read(listed(prompts, outputs), tmp_path)
    assert words in str(raised.value)


def test_failed_requests_are_left_out_and_said(tmp_path):
    """A failed request generated nothing; the lists hold it, the totals and the run do not."""
    document = listed([ISL] * (REQUESTS + 2), [0, 0] + [OSL] * REQUESTS) | {"failed": 2}
    found = read(document, tmp_path)
    assert found.requests == REQUESTS and any("2 requests failed" in text for text in found.assumed)


@pytest.mark.parametrize(("stated", "shape"), [(0.2, 0.2), (1.0, 1.0), (None, 1.0)])
def test_the_shape_of_arrivals_is_read(tmp_path, stated, shape):
    """`vllm bench serve` writes its burstiness."""
    assert read(vllm(request_rate=2.0, burstiness=stated), tmp_path).burstiness == shape


@pytest.mark.parametrize(
    "changes",
    [
        {"total_input_tokens": 1e300},
        {"completed": 1e-300},
        {"request_rate": 1e20},
        {"request_rate": 1e-300},
        {"total_output_tokens": 1e300},
    ],
)
def test_no_run_is_that_large_or_small(tmp_path, changes):
    """Numbers that no serving run has are a reason, not a crash."""
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(vllm(**changes)), encoding="utf-8")
    answer = CliRunner().invoke(app, ["validate", str(path), "--on", "h100_sxm", "--tp", "4", "--json"])
    assert answer.exit_code == 0 and len(json.loads(answer.stdout)["unsupported"]) == 1

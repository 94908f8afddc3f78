"""Data folders and strict YAML: what is wrong with a file is said with file, line and remedy."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from moai_planner.catalog.paths import PACKAGE, data_root
from moai_planner.catalog.yaml_file import near, parse_yaml, read_yaml
from moai_planner.domain.errors import InputError


def test_checkout_has_the_data_beside_the_package():
    assert (data_root() / "hardware_profiles" / "h100_sxm.yaml").is_file()
    assert (data_root() / "workload_traces").is_dir()


def test_installed_wheel_carries_its_data(tmp_path: Path):
    (tmp_path / "moai_planner" / "_data").mkdir(parents=True)
    assert data_root(tmp_path / "moai_planner") == tmp_path / "moai_planner" / "_data"


def test_built_wheel_plans_without_the_checkout(tmp_path: Path):
    """Law: what the checkout knows, an installed wheel knows."""
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
    )
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "site")
    code = (
        "from moai_planner.catalog.accelerators import accelerator, accelerator_ids\n"
        "from moai_planner.catalog.models import model_names\n"
        "from moai_planner.catalog.paths import data_root\n"
        "print(accelerator('h100').id, len(accelerator_ids()), len(model_names()), data_root().name)"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    device, accelerators, models, folder = found.stdout.split()
    assert (device, folder) == ("h100_sxm", "_data")
    assert int(accelerators) >= 36 and int(models) >= 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "only comments"),
        ("- a\n- b\n", "a list at the top"),
        ("just words\n", "a str at the top"),
        ("a: 1\nb: [1, 2\n", "line 3"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: key 'c' is given twice"),
        ("a: &x [*x]\nb: !!python/object:os.system {}\n", "is not YAML"),
        ("\x00", "is not YAML"),
    ],
)
def test_faults_of_yaml(text, said):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x.yaml")
    assert said in str(caught.value) and str(caught.value).startswith("x.yaml")


def test_directory_in_place_of_a_file(tmp_path: Path):
    with pytest.raises(InputError, match="is a directory"):
        read_yaml(tmp_path)


def test_missing_file_names_a_near_one(tmp_path: Path):
    (tmp_path / "capacity.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"did you mean capacity\.yaml"):
        read_yaml(tmp_path / "capacty.yaml")


def test_binary_file(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_yaml(path)


def test_dates_stay_text():
    assert parse_yaml("date: 2026-01-15", "x") == {"date": "2026-01-15"}


def test_near_names_hint_at_what_exists():
    assert near("xyz", ("a", "b")) == "one of a, b"

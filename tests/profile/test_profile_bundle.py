"""The offline bundle: pieces join to what was packed, and foreign device code is zeroed in place."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "h200_bundle.py"


@pytest.fixture
def bundle(monkeypatch):
    spec = importlib.util.spec_from_file_location("h200_bundle", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    return module


def _packed(bundle, folder, members):
    pieces = bundle._pack(folder / "engine", iter(members))
    (folder / "manifest.json").write_text(json.dumps({"pieces": pieces}))
    return pieces


def test_pieces_are_small_and_join_to_what_was_packed(bundle, tmp_path):
    """Law: no piece is larger than allowed, and installing gives every byte back."""
    import random

    members = [("a/b.py", b"x = 1\n"), ("a/c.so", random.Random(0).randbytes(5000))]
    pieces = _packed(bundle, tmp_path, members)
    assert len(pieces) > 3 and all(piece["bytes"] <= 1000 for piece in pieces)
    bundle.install(tmp_path, tmp_path / "site")
    assert {name: (tmp_path / "site" / name).read_bytes() for name, _ in members} == dict(members)


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_damaged_piece_is_named(bundle, tmp_path, harm):
    """A piece that is missing or altered stops the installation before anything is unpacked."""
    pieces = _packed(bundle, tmp_path, [("a.so", bytes(range(256)) * 20)])
    piece = tmp_path / pieces[0]["name"]
    piece.unlink() if harm == "lost" else piece.write_bytes(b"\0" + piece.read_bytes()[1:])
    with pytest.raises(SystemExit, match=pieces[0]["name"]):
        bundle.install(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def _fat_binary(entries):
    body = b""
    for kind, architecture, code in entries:
        head = struct.pack("<HHIQ", kind, 0, 64, len(code)) + bytes(12) + struct.pack("<I", architecture)
        body += head.ljust(64, b"\0") + code
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_only_code_of_other_architectures_is_zeroed(bundle):
    """Law: same length; sm_90 code, PTX of 80 and 90 and the library around stay, other code is zero."""
    entries = [
        (2, 80, b"A" * 40),
        (2, 90, b"B" * 40),
        (1, 80, b"C" * 24),
        (1, 75, b"D" * 24),
        (2, 100, b"E" * 8),
    ]
    library = b"front" + _fat_binary(entries) + b"back" + _fat_binary([(2, 90, b"F" * 16)])
    kept = bundle.keep_architectures(library)
    assert len(kept) == len(library) and kept.startswith(b"front")
    assert [letter in kept for letter in (b"AA", b"BB", b"CC", b"DD", b"EE", b"FF", b"back")] == [
        False, True, True, False, False, True, True,
    ]  # fmt: skip


def test_requirements_are_pinned_and_leave_the_machine_alone():
    """Every wheel brought along is pinned, and none replaces what the machine's torch is built with."""
    lines = (FILE.parent / "h200_requirements.txt").read_text().splitlines()
    names = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(equals and version for _, equals, version in names)
    assert not {name for name, _, _ in names} & {"torch", "triton", "transformers", "numpy", "vllm"}


@pytest.mark.parametrize("rehearsal", [True, False])
def test_a_prepared_bundle_is_all_that_is_carried(bundle, tmp_path, monkeypatch, rehearsal):
    """Engine less what is left out, needs, planner, scripts: carried away, it installs and imports there."""

    def download(*arguments):
        wheels = Path(arguments[arguments.index("--dest") + 1])
        for name in ("vllm", "needed"):
            with zipfile.ZipFile(wheels / f"{name}-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{name}/__init__.py", "")
                wheel.writestr(f"{name}/vllm-rs", "x")

    monkeypatch.setattr(bundle, "PIECE_BYTES", 60 * 1024 * 1024)
    monkeypatch.setattr(bundle, "_run_pip", download)
    engine = bundle.CPU_ENGINE if rehearsal else bundle.ENGINE
    row = bundle.prepare(tmp_path / "out", engine, sm90_only=not rehearsal)
    assert row["pieces"] == 3 and row["bytes"] < 5_000_000
    assert {path.name for path in (tmp_path / "out").glob("*.py")} == set(bundle.SCRIPTS)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["commit"] and bool(manifest["left_out"]) is not rehearsal
    bundle.install(tmp_path / "out", tmp_path / "site")
    assert (tmp_path / "site/vllm/vllm-rs").exists() is rehearsal
    code = "import moai_planner.cli.profile, moai_planner.catalog.models as m; m.model('gpt-oss-120b')"
    there = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=there, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

"""Files in memory → a folder, whole or not at all, and nothing of the user's lost.

The new tree is written beside the old one and takes its place by renaming. Only files that an earlier
manifest lists and that are unchanged are replaced without being asked; everything else that lies in the
folder (logs, notes) moves along.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from moai_planner.domain.errors import InputError, Problem
from moai_planner.emit.digest import content_digest
from moai_planner.emit.render import RenderedFile

MANIFEST = "manifest.json"
FORMAT = "moai-emit/1"


def manifest(files: tuple[RenderedFile, ...], facts: dict[str, Any]) -> RenderedFile:
    """The list of all files with their digests."""
    listed = {
        file.path: {"sha256": content_digest(file.content), "executable": file.executable} for file in files
    }
    text = json.dumps({"format": FORMAT} | facts | {"files": listed}, indent=2, ensure_ascii=False)
    return RenderedFile(MANIFEST, (text + "\n").encode(), False, "json")


def publish(files: tuple[RenderedFile, ...], out: Path, force: bool = False) -> None:
    """Replace `out` by the files. InputError when it holds what is not ours, unless `force`."""
    out = Path(os.path.realpath(out))
    try:
        earlier = _earlier_files(out, force)
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise _unwritable(out, error) from error
    fresh, old = beside / "fresh", beside / "old"
    try:
        for file in files:
            _write(fresh / file.path, file)
        _swap(fresh, out, old)
        if old.exists():
            _keep_the_rest(old, out, earlier)
            shutil.rmtree(old)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        with suppress(OSError):
            beside.rmdir()  # stays, with the old tree in it, only when that could not be moved along


def _swap(fresh: Path, out: Path, old: Path) -> None:
    """`fresh` takes the place of `out`, which moves to `old`; on failure `out` is as before."""
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(fresh, out)
    except BaseException:
        if old.exists():
            os.rename(old, out)
        raise


def _earlier_files(out: Path, force: bool) -> set[str]:
    """Paths that an earlier emission wrote into `out`."""
    if not out.exists():
        return set()
    if not out.is_dir():
        raise InputError(Problem(str(out), "--out", "a file", "give a folder"))
    if not any(out.iterdir()):
        return set()
    listed = _listed(out / MANIFEST)
    if listed is None:
        if force:
            return set()
        remedy = "not empty and not ours; choose another folder, or --force to write into it"
        raise InputError(Problem(str(out), "--out", "", remedy))
    edited = [path for path, digest in listed.items() if _digest(out / path) not in (digest, None)]
    if edited and not force:
        remedy = "changed since they were emitted; move the changes away, or --force to overwrite them"
        raise InputError(Problem(str(out), "--out", ", ".join(sorted(edited)), remedy))
    return {*listed, MANIFEST}


def _listed(path: Path) -> dict[str, str] | None:
    """Path → digest of a manifest of ours; None for anything else."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            return None
        return {name: entry["sha256"] for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(path: Path) -> str | None:
    return content_digest(path.read_bytes()) if path.is_file() else None


def _write(path: Path, file: RenderedFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    path.chmod(0o755 if file.executable else 0o644)


def _keep_the_rest(old: Path, out: Path, earlier: set[str]) -> None:
    """Move what an emission did not write (state, notes) from the old tree into the new one."""
    for folder, _, names in os.walk(old):
        for name in names:
            source = Path(folder) / name
            relative = source.relative_to(old)
            if relative.as_posix() in earlier:
                continue
            destination = out / relative
            while destination.exists():
                destination = destination.with_name(destination.name + ".kept")
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, destination)


def _unwritable(out: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(Problem(str(out), "--out", reason, "give a folder that can be written"))

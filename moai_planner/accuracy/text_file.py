"""A file of measurements → its text: UTF-8, gzipped or not. What cannot be read is a problem."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from moai_planner.domain.errors import InputError, Problem

GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path, wanted: str) -> str:
    """The text of a file that should be `wanted` ("a measurements table, .csv or .csv.gz")."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), "", "not UTF-8 text", f"give {wanted} in UTF-8")) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(str(path), "", reason, f"give {wanted}")) from error

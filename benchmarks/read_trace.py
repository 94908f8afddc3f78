"""What reading a trace takes beside pandas alone reading the same file.

    python benchmarks/read_trace.py [ROWS]

The last line is one JSON object; `ratio` is our time (reading, checking, counting) over pandas'.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from moai_planner.catalog.traces import trace


def main(rows: int) -> None:
    table = np.column_stack((np.arange(rows), np.full(rows, 700), np.full(rows, 90))).astype(str)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        path.write_text("Timestamp,Request tokens,Response tokens\n" + "\n".join(map(",".join, table)) + "\n")
        trace_s, pandas_s = (min(_seconds(read, path) for _ in range(3)) for read in (trace, pd.read_csv))
    print(json.dumps({"rows": rows, "trace_s": trace_s, "pandas_s": pandas_s, "ratio": trace_s / pandas_s}))


def _seconds(read, path: Path) -> float:
    start_s = time.process_time()
    read(str(path))
    return time.process_time() - start_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)

#!/usr/bin/env bash
# Install the pinned CPU engine and moai-planner into an environment of their own.
#
#   engine/install.sh .venv-engine      about 1.5 minutes and 2.6 GB; nothing to do when it is up to date
#
# PYTHON             interpreter to build on (default python3; 3.11 or newer, x86-64 Linux)
# MOAI_TORCH_INDEX   package index with CPU builds of torch, asked when pip's own sources (find-links, extra
#                    indexes) have none; default https://download.pytorch.org/whl/cpu
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
venv=${1:?usage: engine/install.sh VENV}
python=${PYTHON:-python3}
index=${MOAI_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

# the stamp names everything the environment was made from, and is written last
stamp=$(
  {
    cat "$here/requirements.lock" "$here/vllm-name/pyproject.toml" "$here/install.sh" "$project/pyproject.toml"
    "$python" -V
    echo "$project"
  } | sha256sum | cut -d' ' -f1
)
if [ -f "$venv/engine.stamp" ] && [ "$(cat "$venv/engine.stamp")" = "$stamp" ]; then
  echo "engine environment $venv is up to date" >&2
  exit 0
fi

began=$SECONDS
rm -f "$venv/engine.stamp"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
install=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet --quiet --no-deps --no-compile)

echo "installing the CPU engine into $venv (about 1.5 minutes)" >&2
torch=$(grep '^torch==' "$here/requirements.lock")
"${install[@]}" "$torch" 2>/dev/null || "${install[@]}" --index-url "$index" "$torch" || {
  echo "no CPU build of $torch found: set MOAI_TORCH_INDEX to a package index that has it" >&2
  exit 2
}
"${install[@]}" --requirement "$here/requirements.lock"
"${install[@]}" --no-build-isolation "$here/vllm-name"
"${install[@]}" --no-build-isolation --editable "$project"
# --no-compile above and once here on all cores: an engine then starts 10 s sooner
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null || true
echo "$stamp" >"$venv/engine.stamp"
echo "engine environment $venv ready after $((SECONDS - began)) s" >&2

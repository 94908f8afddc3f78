#!/usr/bin/env bash
# Write engine/requirements.lock anew: resolve the CPU engine in a throw-away environment and freeze it.
#
#   engine/lock.sh            needs network, about a minute; review the difference before committing it
#
# MOAI_TORCH_INDEX names the index of CPU builds of torch where pip's own settings do not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
pip=("$scratch/venv/bin/pip" --disable-pip-version-check --quiet)
"${pip[@]}" install uv

# a requirement that no interpreter satisfies takes a package out of the resolution
printf '%s ; python_version < "0"\n' torchvision torchaudio torchcodec triton >"$scratch/left-out.txt"
sources=(--extra-index-url "${MOAI_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}")
[ -n "${PIP_FIND_LINKS:-}" ] && sources=(--find-links "$PIP_FIND_LINKS")
"$scratch/venv/bin/uv" pip install --quiet --python "$scratch/venv/bin/python" "${sources[@]}" \
  --override "$scratch/left-out.txt" --requirement "$here/requirements.in"

{
  sed -n '/^#/p' "$here/requirements.lock"
  "$scratch/venv/bin/pip" freeze --all | grep -v -E '^(pip|uv)=='
} >"$scratch/lock"
mv "$scratch/lock" "$here/requirements.lock"

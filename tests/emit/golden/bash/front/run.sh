#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# The weighted front, in the foreground. NGINX: the server's command.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${MOAI_STATE:-$here/../state}/front
mkdir -p "$state"
state=$(cd "$state" && pwd)
read -ra nginx <<<"${NGINX:-nginx}"
exec "${nginx[@]}" -p "$state" -c "$here/nginx.conf" -g 'daemon off;' "$@"

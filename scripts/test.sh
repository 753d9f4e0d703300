#!/usr/bin/env bash
# All tests, in this checkout's own virtual environment.
#
#   ./scripts/test.sh                         everything
#   ./scripts/test.sh --unit                  unit tests and specification vectors, without the language model, in parallel
#   ./scripts/test.sh tests/scenario -k name  anything else is handed to pytest
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
ensure_venv dev
cd "$REPO"
if [ "${1:-}" = "--unit" ]; then
    shift
    export OMP_NUM_THREADS=1 # the workers fill the cores already; their math threads would only fight
    set -- tests/unit tests/spec -m "not model" -n logical "$@"
fi
exec "$VENV/bin/python" -m pytest "$@"

#!/usr/bin/env bash
# The main job: a whole subnet on this machine that pays honest work and starves the rest.
#
#   ./scripts/up.sh [--mechanism inference|training|both] [--epochs N] [--json FILE] [--fresh] [--keep-running]
#                   [--runtime FILE|CHAINSPEC|URL]
#
# --runtime runs it on a released Wasm runtime of the chain, where SDK and runtime fit; where not, it ends with status 2
# and says what is missing, before anything starts.
#
# Makes its own virtual environment on the first run. Everything it keeps is in .venv and .touchstone of this checkout,
# except the model, which is cached for the whole machine (~/.cache/touchstone, or TOUCHSTONE_CACHE).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
case " $* " in *" --help "* | *" -h "*)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [ -x "$VENV/bin/touchstone" ] || exit 0 # nobody who asks for help waits for an installation
    exec "$VENV/bin/python" "$REPO/scripts/main_job.py" --help ;;
esac
extra=""
case " $* " in *" --mechanism"*) extra=demo ;; esac # training needs an S3 server
ensure_venv "$extra"
exec "$VENV/bin/python" "$REPO/scripts/main_job.py" "$@"

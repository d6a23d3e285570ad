#!/usr/bin/env bash
# The test command: what CI runs, on any machine with Python 3.11 and pip.
#
#   bash tests/run.sh           the newest transformers and one of each older loader generation
#   bash tests/run.sh --all     every version in tests/environments/versions.py
#
# The environments go to .venvs; HFTRACE_ENVIRONMENTS names another directory,
# HFTRACE_PYTHON another interpreter to make them with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${HFTRACE_PYTHON:-}"
if [ -z "$python" ]; then
  for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      python="$candidate"
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "tests/run.sh: no Python 3.10 or newer found; name one with HFTRACE_PYTHON" >&2
  exit 1
fi

which="${1:---ci}"
"$python" tests/environments/make.py "$which"
exec "$python" tests/environments/run.py --checks "$which"

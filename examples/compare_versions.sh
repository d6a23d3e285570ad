#!/usr/bin/env bash
# Is an upgrade of transformers faster, and what does it need? Loads one model with two environments in turn.
#
#   examples/compare_versions.sh MODEL OLD_PYTHON NEW_PYTHON [RUNS]
#   examples/compare_versions.sh ./my-model /envs/old/bin/python /envs/new/bin/python
#
# hftrace need not be installed in either environment. Five runs of each are needed for a verdict.
# The traces and the comparison stay in traces/upgrade; look at them again with
#   hftrace compare traces/upgrade --view phases
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
model=$1 old=$2 new=$3 runs=${4:-5}
hftrace=${HFTRACE:-hftrace}

$hftrace compare "$model" --warm --repeat "$runs" -o traces/upgrade \
  --variant "old: auto-dtype, python=$old" \
  --variant "new: auto-dtype, python=$new"

# The same for a comment on a pull request.
$hftrace compare traces/upgrade --format markdown > traces/upgrade/comment.md

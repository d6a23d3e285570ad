#!/usr/bin/env bash
# One load on the ranks of two machines, and one trace of all of them.
#
#   examples/two_nodes.sh MODEL NODE ADDRESS [OPTIONS of hftrace load]
#   examples/two_nodes.sh ./my-model 0 node0.example --tp-plan auto      on the first machine, and at the same time
#   examples/two_nodes.sh ./my-model 1 node0.example --tp-plan auto      on the second
#   examples/two_nodes.sh merge                                          where both files are
#
# ADDRESS is the first machine's, as the second one reaches it. RANKS (2) is the number of processes on each machine,
# PORT (29500) a free port of the first. Each machine writes one file for its own ranks: job.json, job.node1.json.
# Without a second machine, both can be started on one, with ADDRESS 127.0.0.1.
set -euo pipefail
if [ "${1:-}" = merge ]; then
  exec hftrace merge job.json job.node1.json -o all.json
fi
if [ $# -lt 3 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
model=$1 node=$2 address=$3
shift 3

exec torchrun --nnodes 2 --node-rank "$node" --nproc-per-node "${RANKS:-2}" \
  --master-addr "$address" --master-port "${PORT:-29500}" \
  -m hftrace load "$model" -o job.json "$@"

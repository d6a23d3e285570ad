#!/usr/bin/env bash
# Records the traces in this directory: one checkpoint, loaded by each of the four loader generations.
# Run from the repository's root, with the environments made by
#   python tests/environments/make.py --directory .venvs --ci
set -euo pipefail
environments=${HFTRACE_ENVIRONMENTS:-.venvs}
here=$(cd "$(dirname "$0")" && pwd)
environments=$(cd "$environments" && pwd)
hftrace=$environments/base/bin/hftrace
# A directory of its own with relative paths, so that no path of this machine gets into a trace.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$hftrace" synth llama-2-7b --size 100MB --max-shard-size 30MB -o llama-2-7b-100mb
load() {
    local name=$1 overlay=$2
    shift 2
    PYTHONPATH=$overlay "$hftrace" load llama-2-7b-100mb --dtype float32 --quiet --force -o "$name.json" "$@"
    cp "$name.json" "$here/"
}
load llama-A-4.48.3 "$environments/overlays/4.48.3"
load llama-B-4.50.3 "$environments/overlays/4.50.3"
load llama-C-4.57.6 "$environments/overlays/4.57.6"
load llama-D-5.23.0 ""
# The same with a layer that stays on disk.
load llama-D-5.23.0-offload "" --device-map '{"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu", "lm_head": "cpu"}' --offload-folder offload
# The stored dtype, which is only mapped: when is the model ready, and what does it leave behind?
PYTHONPATH="" "$hftrace" load llama-2-7b-100mb --dtype bfloat16 --warm --touch --forward --release --quiet --force -o llama-D-5.23.0-ready.json
cp llama-D-5.23.0-ready.json "$here/"
# One that is stopped: 470 MB are enough for the interpreter and its libraries, and not for the widened weights.
PYTHONPATH="" "$hftrace" load llama-2-7b-100mb --dtype float32 --memory-limit 470MB --quiet --force -o llama-D-5.23.0-limit.json || [ $? -eq 3 ]
cp llama-D-5.23.0-limit.json "$here/"

#!/usr/bin/env bash
# Records the traces of loads onto a GPU in this directory, on torch's CUDA build over a stand-in for the CUDA
# runtime (tests/environments/gpu.py): a mixture of experts, and the same where the GPU is too small for it.
# Run from the repository's root.
set -euo pipefail
environments=${HFTRACE_ENVIRONMENTS:-.venvs}
here=$(cd "$(dirname "$0")" && pwd)
environments=$(cd "$environments" && pwd)
root=$(cd "$here/../.." && pwd)
gpu=$root/tests/environments/gpu.py
# A directory of its own with relative paths, so that no path of this machine gets into a trace.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$environments/base/bin/hftrace" synth mixtral-8x7b --size 1GB -o mixtral-8x7b-1gb
# With the base environment of transformers 5.23.0 (tests/environments/versions.py).
load() {
    local bytes=$1 name=$2
    CUDA_STAND_IN_BYTES=$bytes "$environments/base/bin/python" "$gpu" --directory "$environments" --exec \
        python -m hftrace load mixtral-8x7b-1gb --device-map cuda:0 --warm --quiet --force -o "$name.json" || [ $? -eq 1 ]
    # The traceback of a load that failed names files of this environment.
    sed -e "s#$environments/##g" -e "s#$root/##g" "$name.json" > "$here/$name.json"
}
load 4000000000 mixtral-D-5.23.0-gpu
# Enough for the model, and not for the sources of a layer's experts beside what is made of them.
load 1450000000 mixtral-D-5.23.0-gpu-full

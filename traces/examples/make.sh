#!/usr/bin/env bash
# Records the traces in this directory: one checkpoint, loaded by each of the four loader generations,
# and one of 2 GB in four ways by transformers 4.48.3 (a few minutes).
# Run from the repository's root, with the environments made by
#   python tests/environments/make.py --directory .venvs --only 4.48.3 4.50.3 4.57.6 5.23.0
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
load llama-D-5.23.0 "$environments/overlays/5.23.0"
# What the process imports, in a second process: with scipy and scikit-learn installed, and bytecode written.
PYTHONPATH=$environments/overlays/4.57.6 "$hftrace" load llama-2-7b-100mb --quiet --force -o imports.json
load imports-C-4.57.6 "$environments/overlays/4.57.6"
# The same with a layer that stays on disk.
load llama-D-5.23.0-offload "$environments/overlays/5.23.0" --device-map '{"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu", "lm_head": "cpu"}' --offload-folder offload
# The stored dtype, which is only mapped: when is the model ready, and what does it leave behind?
PYTHONPATH=$environments/overlays/5.23.0 "$hftrace" load llama-2-7b-100mb --dtype bfloat16 --warm --touch --forward --release --quiet --force -o llama-D-5.23.0-ready.json
cp llama-D-5.23.0-ready.json "$here/"
# One that is stopped: 470 MB are enough for the interpreter and its libraries, and not for the widened weights.
PYTHONPATH=$environments/overlays/5.23.0 "$hftrace" load llama-2-7b-100mb --dtype float32 --memory-limit 470MB --quiet --force -o llama-D-5.23.0-limit.json || [ $? -eq 3 ]
cp llama-D-5.23.0-limit.json "$here/"
# Fast init against the rest, where it still was an option.
"$hftrace" synth llama-2-7b --size 2GB -o l2g
PYTHONPATH=$environments/overlays/4.48.3 "$hftrace" compare l2g --warm --variant 'fast-init: fast-init+bf16' \
    --variant 'no-fast-init: no-fast-init+bf16' --variant 'low-cpu-mem: low-cpu-mem+bf16' \
    --variant 'device-map: bf16, device_map=cpu' -o fast-init-4.48.3
rm -rf "$here/fast-init-4.48.3"
cp -r fast-init-4.48.3 "$here/"
# One checkpoint and three versions of transformers, each with its own interpreter.
for version in 4.48.3 4.57.6 5.23.0; do
    "$environments/base/bin/python" -m venv --without-pip "env-$version"
    printf '%s\n' "$environments/overlays/$version" "$("$environments/base/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        > "$(echo "env-$version"/lib/python*/site-packages)/overlay.pth"
done
PYTHONPATH="" "$hftrace" compare llama-2-7b-100mb --warm --variant '5.23.0: fp32, python=env-5.23.0/bin/python' \
    --variant '4.57.6: fp32, python=env-4.57.6/bin/python' \
    --variant '4.48.3: fp32, python=env-4.48.3/bin/python' -o versions
rm -rf "$here/versions"
cp -r versions "$here/"

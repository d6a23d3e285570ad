"""Holds the peaks that ``hftrace plan`` gives against those of real, untraced loads of 300 MB and more.

    python scripts/plan_memory.py FOLDER [--only LOAD ...] [--rounds N]

FOLDER is where the checkpoints lie, 5 GB; they are written once. Each load is planned by the command, and
done in a fresh process whose anonymous memory is read every half millisecond from outside; its total
is the kernel's high-water mark. "Above" is the part above what the process had when
``from_pretrained`` was called. Prints lines for docs/plan.md, in MB: planned / measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")
INTERVAL_SECONDS = 0.0005
FURTHEST = 0.05
"""What a plan may be off by."""
CAUSAL = "AutoModelForCausalLM"
UP: dict[str, Any] = {"dtype": "float32"}
DISK = {"device_map": "auto", "max_memory": {"cpu": "400MB"}, "offload_folder": "off", **UP}
ADAPTED, UNPACKED = "adapter", "m.gguf"

CHECKPOINTS: dict[str, tuple[str, ...]] = {
    "llama": ("llama-2-7b", "--size", "424MB", "--max-shard-size", "150MB"),
    "llama-one": ("llama-2-7b", "--size", "424MB"),
    "llama-bin": ("llama-2-7b", "--size", "424MB", "--max-shard-size", "150MB", "--format", "bin"),
    "gpt2": ("gpt2", "--size", "350MB"),
    "t5": ("t5-small", "--size", "400MB"),
    "bert": ("bert-base", "--size", "400MB"),
    "mixtral": ("mixtral-8x7b", "--size", "400MB"),
    "whisper": ("whisper-tiny", "--size", "400MB"),
}
"""How each is written, by ``hftrace synth``."""

LOADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "3 shards, cast up": ("llama", CAUSAL, UP),
    "3 shards, cast to float16": ("llama", CAUSAL, {"dtype": "float16"}),
    "one file, as stored": ("llama-one", CAUSAL, {"dtype": "auto"}),
    ".bin, cast up": ("llama-bin", CAUSAL, UP),
    "device_map cpu, cast up": ("llama", CAUSAL, {"device_map": "cpu", **UP}),
    "device_map auto, rest on disk, cast up": ("llama", CAUSAL, DISK),
    ".bin, rest on disk, cast up": ("llama-bin", CAUSAL, DISK),
    "a new head, cast up": ("llama", "AutoModelForSequenceClassification", UP),
    "GPT-2, cast down": ("gpt2", CAUSAL, {"dtype": "float16"}),
    "T5, cast up": ("t5", "AutoModelForSeq2SeqLM", UP),
    "BERT, cast down": ("bert", "AutoModelForMaskedLM", {"dtype": "float16"}),
    "Whisper, cast down": ("whisper", "AutoModelForSpeechSeq2Seq", {"dtype": "bfloat16"}),
    "Mixtral, as stored": ("mixtral", CAUSAL, {"dtype": "auto"}),
    "Mixtral, cast up": ("mixtral", CAUSAL, UP),
    "LoRA on 3 shards, cast up": (f"llama/{ADAPTED}", CAUSAL, UP),
    "GGUF": (f"gguf/{UNPACKED}", CAUSAL, {}),
    "bitsandbytes 8 bit": (
        "llama",
        CAUSAL,
        {"quantization_config": {"load_in_8bit": True}, "device_map": "cpu"},
    ),
}

CHILD = """
import importlib, json, sys
from pathlib import Path
owner, model, keywords = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import transformers
importlib.import_module("transformers.modeling_utils")
transformers.utils.logging.disable_progress_bar()
from hftrace.record.child.keywords import dtype_keyword
import torch
if "dtype" in keywords:
    value = keywords.pop("dtype")
    keywords[dtype_keyword()] = value if value == "auto" else getattr(torch, value)
if "quantization_config" in keywords:
    keywords["quantization_config"] = transformers.BitsAndBytesConfig(**keywords["quantization_config"])
if model.endswith(".gguf"):
    keywords["gguf_file"] = Path(model).name
    model = str(Path(model).parent)
owner = getattr(transformers, owner)
def memory():
    rows = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return {name: int(rows[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon", "RssFile")}
print("START", json.dumps(memory()), flush=True)
model = owner.from_pretrained(model, **keywords)
print("END", json.dumps(memory()), flush=True)
"""

ADAPT = """
import json, sys, torch, safetensors.torch
from pathlib import Path
base, place = Path(sys.argv[1]), Path(sys.argv[2])
config = json.loads((base / "config.json").read_text())
place.mkdir()
wide, rank = config["hidden_size"], 8
heads = config["num_attention_heads"]
narrow = config["num_key_value_heads"] * config.get("head_dim", wide // heads)
tensors = {}
for layer in range(config["num_hidden_layers"]):
    for name, out in (("q_proj", wide), ("v_proj", narrow)):
        stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, wide)
        tensors[f"{stem}.lora_B.weight"] = torch.randn(out, rank)
safetensors.torch.save_file(tensors, place / "adapter_model.safetensors", {"format": "pt"})
adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 16, "lora_dropout": 0.0,
           "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": str(base), "bias": "none",
           "inference_mode": True}
(place / "adapter_config.json").write_text(json.dumps(adapter))
"""

UNPACK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gguf_files, numpy, transformers
config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=10,
    num_attention_heads=16, num_key_value_heads=16, tie_word_embeddings=False)
found = gguf_files.shapes(config, "llama")
random = numpy.random.default_rng(0)
tensors = {key: random.standard_normal(shape, dtype=numpy.float32) for key, shape in found.items()}
facts = {**gguf_files.LLAMA_LIKE, "embedding_length": 1024, "block_count": 10, "feed_forward_length": 2816,
    "attention.head_count": 16, "attention.head_count_kv": 16, "vocab_size": 32000}
tensors = {key: value.astype(numpy.float16) if value.ndim > 1 else value for key, value in tensors.items()}
gguf_files.write(Path(sys.argv[2]), "llama", facts, tensors, lambda key: "F16", tokens=32000)
"""


def checkpoint(folder: Path, name: str) -> Path:
    """Returns a checkpoint, written where it is not there yet."""
    first, _, rest = name.partition("/")
    place = folder / first
    if first in CHECKPOINTS and not place.exists():
        _run("-m", "hftrace", "synth", *CHECKPOINTS[first], "-o", str(place))
    if rest == ADAPTED and not (place / rest).exists():
        _run("-c", ADAPT, str(place), str(place / rest))
    if rest == UNPACKED and not (place / rest).exists():
        place.mkdir(exist_ok=True)
        tests = Path(__file__).resolve().parents[1] / "tests" / "integration"
        _run("-c", UNPACK, str(tests), str(place / rest))
    return place / rest if rest else place


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdin=subprocess.DEVNULL)


def measured(owner: str, model: Path, keywords: dict[str, Any], work: Path) -> dict[str, int] | str:
    """Returns what a real load takes; what it says last where it fails."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, owner, str(model), json.dumps(keywords)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=work,
    )
    peak = [0]

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        with contextlib.suppress(OSError, IndexError):
            handle = os.open(f"/proc/{process.pid}/statm", os.O_RDONLY)
            while process.poll() is None:
                row = os.pread(handle, 200, 0).split()
                peak[0] = max(peak[0], (int(row[1]) - int(row[2])) * PAGE)
                time.sleep(INTERVAL_SECONDS)

    thread = threading.Thread(target=watch)
    thread.start()
    out, err = process.communicate()
    thread.join()
    rows = {
        name: json.loads(rest)
        for name, _, rest in (line.partition(" ") for line in out.splitlines())
        if name in ("START", "END")
    }
    if "END" not in rows:
        return (err.strip().splitlines() or ["nothing"])[-1]
    start, end = rows["START"], rows["END"]
    return {
        "anon": max(peak[0], end["RssAnon"]),
        "start_anon": start["RssAnon"],
        "total": end["VmHWM"],
        "start_total": start["RssAnon"] + start["RssFile"],
    }


def planned(owner: str, model: Path, keywords: dict[str, Any], work: Path) -> dict[str, Any]:
    """Returns what the command says."""
    words = [f"--kwarg={name}={json.dumps(value)}" for name, value in keywords.items()]
    done = subprocess.run(
        [sys.executable, "-m", "hftrace", "plan", str(model), "--class", owner, *words, "--json"],
        capture_output=True,
        text=True,
        cwd=work,
        stdin=subprocess.DEVNULL,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return {"error": (done.stderr.strip().splitlines() or ["nothing"])[0]}
    return dict(found)


def row(name: str, plan: dict[str, Any], load: dict[str, int] | str, version: str) -> tuple[str, bool]:
    """Returns a line of the table, and whether the plan is near enough, or says that it does not know."""
    if isinstance(load, str) or "error" in plan or not plan["known"]:
        said = plan.get("error") or plan.get("unknown_because") or "a plan"
        return f"| {name} | {version} | the load: {load}; the plan: {said} |", isinstance(
            load, str
        ) and "error" in plan
    cells, fine = [], True
    for kind in ("anon", "total"):
        whole, start = plan[f"peak_{kind}_bytes"], plan[f"start_{kind}_bytes"]
        least = plan[f"peak_{kind}_at_least_bytes"]
        if whole is None:
            above, most = load[kind] - load[f"start_{kind}"], plan[f"peak_{kind}_at_most_bytes"]
            cells += [
                f"{_bounds(least, most)} / {load[kind] / 1e6:.0f}",
                f"{_bounds(least - start, most and most - start)} / {above / 1e6:.0f}",
            ]
            fine = fine and least <= load[kind] * (1 + FURTHEST) and (most is None or load[kind] <= most)
            continue
        for mine, real in (
            (whole, load[kind]),
            (whole - start, load[kind] - load[f"start_{kind}"]),
        ):
            off = mine / real - 1 if real else 0.0
            fine = fine and abs(off) <= FURTHEST
            cells.append(f"{mine / 1e6:.0f} / {real / 1e6:.0f} ({off:+.1%})")
    return f"| {name} | {version} | {' | '.join(cells)} |", fine


def _bounds(least: int, most: int | None) -> str:
    return f"≥ {least / 1e6:.0f}" if most is None else f"{least / 1e6:.0f} to {most / 1e6:.0f}"


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where checkpoints are kept")
    parser.add_argument("--only", nargs="+", default=None, help="these loads")
    parser.add_argument("--rounds", type=int, default=1, help="real loads of each; the highest peak counts")
    options = parser.parse_args()
    from importlib.metadata import version

    options.folder.mkdir(parents=True, exist_ok=True)
    outside = 0
    for name in options.only or LOADS:
        place, owner, keywords = LOADS[name]
        model = checkpoint(options.folder, place).resolve()
        plan = planned(owner, model, keywords, options.folder)
        loads = [measured(owner, model, keywords, options.folder) for _ in range(options.rounds)]
        worst = max(loads, key=lambda each: -1 if isinstance(each, str) else each["anon"])
        line, fine = row(name, plan, worst, version("transformers"))
        outside += not fine
        sys.stdout.write(f"{line}{'' if fine else '  <- OUTSIDE'}\n")
        sys.stdout.flush()
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())

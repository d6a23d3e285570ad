"""Traces made by hand, for tests of analysis and views.

Every figure is written down or computed from the arguments: nothing is
measured, so the same call gives the same trace everywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hftrace.schema.model import Facts, File, Import, Request, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace

MS = 1_000_000
PID = 4242
MAIN = 7001
GB = 10**9
MB = 10**6
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Builder:
    """Collects rows and gives a trace."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.tensors: list[Tensor] = []
        self.files: list[File] = []
        self.samples: list[Sample] = []
        self.requests: list[Request] = []
        self.imports: list[Import] = []
        self.header: dict[str, Any] = {
            "hftrace": "0.1.0",
            "command": "load",
            "argv": ["hftrace", "load", "checkpoints/llama"],
            "start_time": "2026-11-02T09:30:00+00:00",
            "clock_base_ns": 123_456_789,
            "ranks": [0],
            "threads": [{"pid": PID, "thread": MAIN, "name": "MainThread"}],
            "process": {"pid": PID},
            "lost": {"events": 0},
            "errors": [],
            "sampling": {"rate_asked_hz": 100, "rate_reached_hz": 99.2},
        }
        self.environment: dict[str, Any] = {
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "accelerate": "1.15.0",
            "safetensors": "0.8.0",
            "huggingface_hub": "1.27.0",
            "os": "Linux 6.8",
            "cpu_count": 8,
            "ram_bytes": 64 * GB,
            "cgroup_limit_bytes": None,
            "devices": [],
            "filesystem": "ext4",
            "variables": {},
            "generation": "D",
            "hooks": {"found": 31, "missing": []},
        }
        self.request: dict[str, Any] = {
            "model": "checkpoints/llama",
            "class": "AutoModelForCausalLM",
            "revision": None,
            "commit": None,
            "keywords": {},
            "ignored": [],
        }
        self.outcome: dict[str, Any] = {"status": "ok"}

    def span(
        self,
        parent: int | None,
        phase: str,
        name: str,
        start_ms: float,
        end_ms: float,
        function: str | None = None,
        source: str | None = None,
        **more: Any,
    ) -> int:
        identity = len(self.spans) + 1
        fields: dict[str, Any] = {
            "pid": PID,
            "thread": MAIN,
            "rank": 0,
            "status": "ok",
            "attributes": {},
            **more,
        }
        self.spans.append(
            Span(
                id=identity,
                parent=parent,
                phase=phase,
                name=name,
                function=function,
                source=source,
                start_ns=round(start_ms * MS),
                end_ns=round(end_ms * MS),
                **fields,
            )
        )
        return identity

    def tensor(self, name: str | None, shape: list[int], **more: Any) -> None:
        count = 1
        for size in shape:
            count *= size
        stored = more.pop("stored_dtype", "bfloat16")
        dtype = more.pop("dtype", stored)
        fields: dict[str, Any] = {
            "kind": "parameter",
            "provenance": "checkpoint",
            "keys": [name] if name else [],
            "file": None,
            "offset": None,
            "stored_bytes": count * ITEM_BYTES[stored] if stored else None,
            "bytes": count * ITEM_BYTES[dtype] if dtype else None,
            "device": "cpu",
            "tied_to": None,
            "read_start_ns": None,
            "read_end_ns": None,
            "placed_ns": None,
            "thread": MAIN,
            "span": None,
            **more,
        }
        self.tensors.append(Tensor(name=name, shape=shape, stored_dtype=stored, dtype=dtype, **fields))

    def file(self, name: str, result: str = "local", size: int | None = None, **more: Any) -> None:
        fields: dict[str, Any] = {
            "path": f"checkpoints/llama/{name}" if result != "missing" else None,
            "asked_by": None,
            "downloaded_bytes": None,
            "requests": 0,
            "shard": None,
            "format": name.rpartition(".")[2],
            "resident_before": None,
            "resident_after": None,
            "opened": result != "missing",
            "read_bytes": None,
            **more,
        }
        self.files.append(File(name=name, result=result, size_bytes=size, **fields))

    def request_row(self, time_ms: float, took_ms: float | None, status: int | None, **more: Any) -> None:
        fields: dict[str, Any] = {
            "method": "HEAD",
            "host": "hub.example",
            "path": "/me/tiny/resolve/main/config.json",
            "bytes": 0 if status is not None else None,
            "attempt": 1,
            "asked_by": None,
            "thread": MAIN,
            **more,
        }
        took = None if took_ms is None else round(took_ms * MS)
        wait = took if status is not None else None
        self.requests.append(
            Request(time_ns=round(time_ms * MS), duration_ns=took, status=status, wait_ns=wait, **fields)
        )

    def sample(self, time_ms: float, anonymous: int, file: int, device: int | None = None) -> None:
        devices = None if device is None else {"cuda:0": device}
        self.samples.append(
            Sample(
                time_ns=round(time_ms * MS),
                rss_anon_bytes=anonymous,
                rss_file_bytes=file,
                rss_shmem_bytes=0,
                swap_bytes=0,
                device_allocated_bytes=devices,
                device_reserved_bytes=devices,
                device_used_bytes=devices,
                storage_read_bytes=None,
                cpu_ns=round(time_ms * MS),
                pid=PID,
            )
        )

    def imported(
        self,
        name: str | None,
        parent: int | None,
        start_ms: float,
        end_ms: float,
        own_ms: float | None = None,
        **more: Any,
    ) -> int:
        """Adds an import; a sum of a package where the name is None. Its own time is all of it otherwise."""
        identity = len(self.imports) + 1
        fields: dict[str, Any] = {"span": 1, "where": "installed", "modules": 1, **more}
        fields.setdefault("package", (name or "").partition(".")[0])
        times = (None, None) if name is None else (round(start_ms * MS), round(end_ms * MS))
        own = round((end_ms - start_ms if own_ms is None else own_ms) * MS)
        row = Import(
            id=identity,
            parent=parent,
            name=name,
            start_ns=times[0],
            end_ns=times[1],
            self_ns=own,
            pid=PID,
            thread=MAIN,
            **fields,
        )
        self.imports.append(row)
        return identity

    def trace(self) -> Trace:
        return Trace(
            header=Facts(self.header),
            environment=Facts(self.environment),
            request=Facts(self.request),
            outcome=Facts(self.outcome),
            spans=Table.of(Span, self.spans),
            tensors=Table.of(Tensor, self.tensors),
            files=Table.of(File, self.files),
            samples=Table.of(Sample, self.samples),
            requests=Table.of(Request, self.requests),
            imports=Table.of(Import, self.imports),
        )


def started() -> Trace:
    """A service that starts in a block: loads, steps, code of its own, and a resize that costs most."""
    made = Builder()
    file = "/srv/app/service.py"
    end = 20_000
    made.header |= {
        "command": "trace",
        "wall_ns": end * MS,
        "session": {
            "start_ns": 0,
            "end_ns": end * MS,
            "entered_at": f"{file}:12",
            "left_at": f"{file}:12",
        },
    }

    def called(line: int, **more: Any) -> dict[str, Any]:
        return {"attributes": {"caller": f"{file}:{line}", "caller_function": "start", **more}}

    made.span(None, "import", "import transformers", 0, 3_000, **called(13, modules=900))
    root = made.span(
        None, "load", "LlamaForCausalLM", 3_000, 5_000, "from_pretrained", "modeling_utils.py:1", **called(14)
    )
    made.span(root, "weights", "weights", 3_000, 5_000, "_load_pretrained_model", "modeling_utils.py:2")
    step = made.span(None, "step", "models", 9_000, 10_500, **called(16))
    root = made.span(
        step, "load", "AutoModel", 9_400, 10_400, "from_pretrained", "auto_factory.py:1", **called(17)
    )
    made.span(root, "weights", "weights", 9_400, 10_400, "_load_pretrained_model", "modeling_utils.py:2")
    made.span(
        None,
        "surgery",
        "LlamaForCausalLM.resize_token_embeddings",
        10_500,
        16_500,
        "PreTrainedModel.resize_token_embeddings",
        "modeling_utils.py:3",
        **called(24),
    )
    step = made.span(None, "step", "warm-up", 16_500, 18_500, **called(26))
    made.span(step, "step", "compile", 17_000, 17_400, **called(27))
    made.span(None, "step", "warm-up", 18_500, 19_400, **called(26))
    return made.trace()


def layer_shapes(hidden: int) -> list[tuple[str, list[int]]]:
    """The nine tensors of a Llama layer."""
    return [
        ("self_attn.q_proj.weight", [hidden, hidden]),
        ("self_attn.k_proj.weight", [hidden // 4, hidden]),
        ("self_attn.v_proj.weight", [hidden // 4, hidden]),
        ("self_attn.o_proj.weight", [hidden, hidden]),
        ("mlp.gate_proj.weight", [hidden * 3, hidden]),
        ("mlp.up_proj.weight", [hidden * 3, hidden]),
        ("mlp.down_proj.weight", [hidden, hidden * 3]),
        ("input_layernorm.weight", [hidden]),
        ("post_attention_layernorm.weight", [hidden]),
    ]


def names_and_shapes(layers: int, hidden: int) -> list[tuple[str, list[int]]]:
    """The tensors of a Llama-like model; the output head is tied to the embedding."""
    result: list[tuple[str, list[int]]] = [("model.embed_tokens.weight", [32000, hidden])]
    for layer in range(layers):
        result.extend((f"model.layers.{layer}.{name}", shape) for name, shape in layer_shapes(hidden))
    result.append(("model.norm.weight", [hidden]))
    return result


def sharded(
    layers: int = 22,
    hidden: int = 2048,
    shards: int = 3,
    dtype: str = "float32",
    device: str = "cpu",
    samples: int = 300,
    seconds: float = 4.0,
    waiting: float = 1.0,
) -> Trace:
    """A 5.x load: one weights span, two reader threads, shards trace from the ledger."""
    made = Builder()
    readers = (7101, 7102)
    made.header["threads"] += [
        {"pid": PID, "thread": thread, "name": f"ThreadPoolExecutor-0_{number}"}
        for number, thread in enumerate(readers)
    ]
    if device != "cpu":
        made.environment["devices"] = [{"name": "GPU", "device": device, "total_bytes": 80 * GB}]
    made.span(
        None,
        "import",
        "import torch",
        0,
        820,
        attributes={"modules": 905, "packages": [["torch", 640 * MS], ["numpy", 95 * MS]]},
        rss_peak_bytes=210 * MB,
        rss_anon_start_bytes=12 * MB,
        rss_anon_bytes=130 * MB,
        rss_file_start_bytes=9 * MB,
        rss_file_bytes=80 * MB,
    )
    made.span(
        None,
        "import",
        "import transformers",
        822,
        1010,
        attributes={"modules": 210, "packages": [["transformers", 150 * MS]]},
        rss_peak_bytes=235 * MB,
    )
    begin = 1015.0
    end = begin + seconds * 1000
    total = sum(2 * _count(shape) for _, shape in names_and_shapes(layers, hidden))
    final = total * (ITEM_BYTES[dtype] // 2)
    on_device = device != "cpu"
    root = made.span(
        None,
        "load",
        "AutoModelForCausalLM",
        begin,
        end,
        "AutoModelForCausalLM.from_pretrained",
        "models/auto/auto_factory.py:261",
        rss_peak_bytes=300 * MB + (0 if on_device else final) + 450 * MB,
        rss_anon_start_bytes=150 * MB,
        rss_file_start_bytes=90 * MB,
        rss_anon_bytes=260 * MB + (0 if on_device else final),
        rss_file_bytes=140 * MB,
        device_peak_bytes={device: final + 60 * MB} if on_device else None,
    )
    config = made.span(
        root,
        "config",
        "config.json",
        begin + 4,
        begin + 36,
        "AutoConfig.from_pretrained",
        "models/auto/configuration_auto.py:1021",
        rss_peak_bytes=240 * MB,
    )
    made.span(config, "resolve", "config.json", begin + 6, begin + 9, "cached_files", "utils/hub.py:312")
    made.span(
        root,
        "import",
        "transformers.models.llama",
        begin + 40,
        begin + 690,
        attributes={
            "modules": 312,
            "packages": [["transformers", 412 * MS], ["torch", 90 * MS], ["scipy", 60 * MS]],
        },
        rss_peak_bytes=290 * MB,
    )
    inner = made.span(
        root,
        "load",
        "LlamaForCausalLM",
        begin + 695,
        end - 6,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        rss_peak_bytes=300 * MB + (0 if on_device else final) + 450 * MB,
    )
    resolve = made.span(
        inner,
        "resolve",
        "weights",
        begin + 700,
        begin + 731,
        "_get_resolved_checkpoint_files",
        "modeling_utils.py:512",
        attributes={"files": shards},
        rss_peak_bytes=296 * MB,
    )
    made.span(
        inner,
        "instantiate",
        "LlamaForCausalLM",
        begin + 735,
        begin + 812,
        "LlamaForCausalLM.__init__",
        "models/llama/modeling_llama.py:421",
        rss_peak_bytes=300 * MB,
    )
    weights = made.span(
        inner,
        "weights",
        "LlamaForCausalLM",
        begin + 815,
        end - 95,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
        rss_peak_bytes=300 * MB + (0 if on_device else final) + 450 * MB,
    )
    made.span(
        inner,
        "finalize",
        "LlamaForCausalLM",
        end - 95,
        end - 52,
        "PreTrainedModel._finalize_model_loading",
        "modeling_utils.py:4140",
        rss_peak_bytes=700 * MB,
    )
    made.span(
        inner,
        "tie",
        "lm_head.weight",
        end - 52,
        end - 50,
        "PreTrainedModel.tie_weights",
        "modeling_utils.py:2510",
    )
    made.span(
        inner,
        "generation_config",
        "generation_config.json",
        end - 48,
        end - 12,
        "GenerationMixin.adjust_generation_fn",
        "generation/utils.py:388",
        rss_peak_bytes=700 * MB,
    )

    entries = names_and_shapes(layers, hidden)
    first, last = (begin + 830) * MS, (end - 110) * MS
    done = 0
    shard_bytes = [0] * shards
    offsets = [0] * shards
    for position, (name, shape) in enumerate(entries):
        size = 2 * _count(shape)
        began = first + (last - first) * done / total
        done += size
        ended = first + (last - first) * done / total
        shard = min(shards - 1, position * shards // len(entries))
        made.tensor(
            name,
            shape,
            dtype=dtype,
            device=device,
            file=shard_name(shard, shards),
            offset=8192 + offsets[shard],
            span=weights,
            thread=readers[position % 2],
            read_start_ns=int(began),
            read_end_ns=int(began + (ended - began) * 0.92),
            convert_start_ns=int(began + (ended - began) * (0.92 - 0.9 * waiting)),
            convert_end_ns=int(began + (ended - began) * 0.94),
            placed_ns=int(ended),
        )
        shard_bytes[shard] += size
        offsets[shard] += size
    made.tensor(
        "lm_head.weight",
        [32000, hidden],
        dtype=dtype,
        device=device,
        provenance="tied",
        tied_to="model.embed_tokens.weight",
        keys=[],
    )
    made.tensor(
        "model.rotary_emb.inv_freq",
        [32],
        stored_dtype=None,
        dtype="float32",
        device=device,
        kind="buffer",
        provenance="computed",
        keys=[],
    )
    made.file("config.json", size=702, asked_by=config, asked=2)
    made.file("model.safetensors", "missing", asked_by=resolve, format="safetensors")
    made.file("model.safetensors.index.json", size=24_100, asked_by=resolve)
    for shard in range(shards):
        size = shard_bytes[shard] + 8192
        made.file(
            shard_name(shard, shards),
            size=size,
            asked_by=resolve,
            shard=shard,
            format="safetensors",
            resident_before=0.02,
            resident_after=1.0,
            read_bytes=shard_bytes[shard],
        )
    made.file("generation_config.json", size=124, asked_by=None)
    for number in range(samples):
        time = end * number / max(1, samples - 1)
        share = min(1.0, max(0.0, (time - begin - 830) / (end - begin - 940)))
        anonymous = int(min(time / 1000, 1.2) * 120 * MB + (0 if on_device else share * final))
        pages = int(
            80 * MB
            + 40 * MB * min(1.0, time / 800)
            + 400 * MB * (share % (1 / shards)) * shards * (0 < share < 1)
        )
        made.sample(time, anonymous, pages, int(share * final) if on_device else None)
    made.outcome = {"status": "ok", "last_phase": "load", "returned_resident_share": 1.0}
    return made.trace()


def healthy() -> Trace:
    """A load on which nothing is to be found: stored dtype, straight to a GPU, readers keep up."""
    return sharded(dtype="bfloat16", device="cuda:0", waiting=0.3)


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def shard_name(shard: int, shards: int) -> str:
    return f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"


def lazy() -> Trace:
    """A 5.x load from one file in the dtype it is stored in: mapped, and never read."""
    made = Builder()
    root = made.span(
        None,
        "load",
        "LlamaForCausalLM",
        0,
        140,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        rss_anon_start_bytes=150 * MB,
        rss_file_start_bytes=100 * MB,
        rss_anon_bytes=170 * MB,
        rss_file_bytes=129 * MB,
        rss_peak_bytes=310 * MB,
    )
    made.span(
        root,
        "instantiate",
        "LlamaForCausalLM",
        2,
        30,
        "LlamaForCausalLM.__init__",
        "models/llama/modeling_llama.py:421",
    )
    weights = made.span(
        root,
        "weights",
        "LlamaForCausalLM",
        30,
        138,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
    )
    entries = names_and_shapes(22, 2048)
    for position, (name, shape) in enumerate(entries):
        began = 31 * MS + position * 500_000
        made.tensor(
            name,
            shape,
            file="model.safetensors",
            span=weights,
            thread=7101,
            read_start_ns=began,
            read_end_ns=began + 20_000,
            convert_start_ns=began,
            convert_end_ns=began + 22_000,
            placed_ns=began + 30_000,
        )
    size = sum(2 * _count(shape) for _, shape in entries)
    made.file(
        "model.safetensors",
        size=size,
        shard=0,
        format="safetensors",
        resident_before=0.0,
        resident_after=0.013,
        read_bytes=size,
    )
    made.outcome = {"status": "ok", "returned_resident_share": 0.013}
    return made.trace()


def killed() -> Trace:
    """A 5.x load that the kernel killed at the memory limit, in its second shard."""
    whole = sharded(shards=2, samples=200)
    made = Builder()
    made.header = dict(whole.header)
    made.environment = {**whole.environment, "cgroup_limit_bytes": 3 * GB}
    made.request = dict(whole.request)
    death = 3200 * MS
    for span in whole.spans:
        if span.start_ns < death:
            alive = span.end_ns >= death
            if alive:
                span = dataclasses.replace(
                    span,
                    end_ns=death,
                    status="killed",
                    rss_anon_bytes=None,
                    rss_file_bytes=None,
                    rss_peak_bytes=2_960_000_000,
                )
            made.spans.append(span)
    for tensor in whole.tensors:
        if tensor.read_start_ns is None or tensor.read_start_ns < death:
            made.tensors.append(tensor)
        else:
            nothing = dict.fromkeys(
                (
                    "provenance",
                    "dtype",
                    "bytes",
                    "device",
                    "read_start_ns",
                    "read_end_ns",
                    "placed_ns",
                    "convert_start_ns",
                    "convert_end_ns",
                    "thread",
                    "span",
                )
            )
            made.tensors.append(dataclasses.replace(tensor, **nothing))
    made.files = [dataclasses.replace(file, read_bytes=None) for file in whole.files]
    made.samples = [sample for sample in whole.samples if sample.time_ns < death]
    made.outcome = {
        "status": "killed",
        "signal": "SIGKILL",
        "last_phase": "weights",
        "last_tensor": "model.layers.11.mlp.up_proj.weight",
        "last_file": "model-00002-of-00002.safetensors",
        "memory_at_death_bytes": 2_960_000_000,
        "limit_bytes": 3 * GB,
    }
    return made.trace()


def failing() -> Trace:
    """A load of a directory without weights: four names tried, then an error."""
    made = Builder()
    message = (
        "OSError: no file named model.safetensors, or pytorch_model.bin, found in directory checkpoints/empty"
    )
    made.request["model"] = "checkpoints/empty"
    root = made.span(
        None,
        "load",
        "AutoModelForCausalLM",
        0,
        96,
        "AutoModelForCausalLM.from_pretrained",
        "models/auto/auto_factory.py:261",
        status="error",
        attributes={"error": message},
        rss_peak_bytes=240 * MB,
    )
    config = made.span(
        root,
        "config",
        "config.json",
        2,
        30,
        "AutoConfig.from_pretrained",
        "models/auto/configuration_auto.py:1021",
    )
    inner = made.span(
        root,
        "load",
        "LlamaForCausalLM",
        35,
        95,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        status="error",
        attributes={"error": message},
    )
    resolve = made.span(
        inner,
        "resolve",
        "weights",
        40,
        94,
        "_get_resolved_checkpoint_files",
        "modeling_utils.py:512",
        status="error",
        attributes={"error": message},
    )
    made.file("config.json", size=702, asked_by=config)
    for name in (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ):
        made.file(name, "missing", asked_by=resolve)
    made.outcome = {
        "status": "error",
        "error": {
            "type": "OSError",
            "message": message.partition(": ")[2],
            "traceback": "Traceback (most recent call last):\n...",
        },
        "last_phase": "resolve",
    }
    return made.trace()


def pickled() -> Trace:
    """A 5.x load of one .bin file with keys that go nowhere and a head that it does not have."""
    made = Builder()
    made.request["model"] = "checkpoints/bert-bin"
    made.request["class"] = "AutoModelForSequenceClassification"
    root = made.span(
        None,
        "load",
        "BertForSequenceClassification",
        0,
        1900,
        "BertForSequenceClassification.from_pretrained",
        "modeling_utils.py:3846",
        rss_peak_bytes=1_200 * MB,
        rss_anon_start_bytes=200 * MB,
        rss_file_start_bytes=90 * MB,
        rss_anon_bytes=640 * MB,
        rss_file_bytes=95 * MB,
    )
    made.span(
        root, "config", "config.json", 3, 25, "PreTrainedConfig.from_pretrained", "configuration_utils.py:498"
    )
    resolve = made.span(
        root, "resolve", "weights", 28, 60, "_get_resolved_checkpoint_files", "modeling_utils.py:512"
    )
    made.span(
        root,
        "instantiate",
        "BertForSequenceClassification",
        62,
        120,
        "BertForSequenceClassification.__init__",
        "models/bert/modeling_bert.py:1181",
    )
    weights = made.span(
        root,
        "weights",
        "BertForSequenceClassification",
        121,
        1800,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
    )
    made.span(
        weights,
        "shard",
        "pytorch_model.bin",
        122,
        1500,
        "load_state_dict",
        "modeling_utils.py:310",
        rss_peak_bytes=1_200 * MB,
    )
    made.span(
        root,
        "initialize",
        "classifier",
        1801,
        1812,
        "PreTrainedModel._initialize_missing_keys",
        "modeling_utils.py:4290",
    )
    for layer in range(12):
        for name, shape in (
            ("attention.self.query.weight", [768, 768]),
            ("attention.self.key.weight", [768, 768]),
            ("output.dense.weight", [768, 3072]),
        ):
            made.tensor(
                f"bert.encoder.layer.{layer}.{name}",
                shape,
                stored_dtype="float32",
                file="pytorch_model.bin",
                span=weights,
                placed_ns=1_600 * MS,
            )
    made.tensor(
        "classifier.weight", [2, 768], stored_dtype=None, dtype="float32", provenance="initialized", keys=[]
    )
    made.tensor("classifier.bias", [2], stored_dtype=None, dtype="float32", provenance="initialized", keys=[])
    for key in ("cls.predictions.bias", "cls.seq_relationship.weight"):
        made.tensor(
            None,
            [30522],
            stored_dtype="float32",
            dtype=None,
            kind="unused",
            provenance="unused",
            keys=[key],
            file="pytorch_model.bin",
            device=None,
        )
    made.file("model.safetensors", "missing", asked_by=resolve)
    size = sum(tensor.stored_bytes or 0 for tensor in made.tensors)
    made.file(
        "pytorch_model.bin",
        "cached",
        size,
        asked_by=resolve,
        shard=0,
        format="pickle",
        resident_before=1.0,
        resident_after=1.0,
        read_bytes=size,
        requests=2,
    )
    for number in range(40):
        made.sample(number * 48, 200 * MB + min(number, 30) * 30 * MB, 92 * MB)
    return made.trace()


def offloaded() -> Trace:
    """A 5.x load with device_map="auto": two thirds on a GPU, some in CPU memory, some on disk."""
    made = Builder()
    made.request["keywords"] = {"device_map": "auto", "dtype": "auto"}
    made.environment["devices"] = [{"device": "cuda:0", "name": "GPU", "total_bytes": 8 * GB}]
    root = made.span(
        None,
        "load",
        "AutoModelForCausalLM",
        0,
        9000,
        "AutoModelForCausalLM.from_pretrained",
        "models/auto/auto_factory.py:261",
        rss_peak_bytes=2_900 * MB,
        device_peak_bytes={"cuda:0": 1_700 * MB},
        rss_anon_start_bytes=200 * MB,
        rss_file_start_bytes=90 * MB,
        rss_anon_bytes=700 * MB,
        rss_file_bytes=2_200 * MB,
    )
    made.span(
        root,
        "instantiate",
        "LlamaForCausalLM",
        10,
        60,
        "LlamaForCausalLM.__init__",
        "models/llama/modeling_llama.py:421",
    )
    made.span(root, "device_map", "auto", 61, 140, "_get_device_map", "integrations/accelerate.py:380")
    made.span(
        root,
        "warmup",
        "cuda:0",
        141,
        420,
        "caching_allocator_warmup",
        "modeling_utils.py:4502",
        device_peak_bytes={"cuda:0": 1_650 * MB},
    )
    weights = made.span(
        root,
        "weights",
        "LlamaForCausalLM",
        421,
        8700,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
        device_peak_bytes={"cuda:0": 1_700 * MB},
    )
    made.span(
        root,
        "dispatch",
        "LlamaForCausalLM",
        8710,
        8980,
        "accelerate_dispatch",
        "integrations/accelerate.py:455",
    )
    entries = names_and_shapes(30, 2048)
    for position, (name, shape) in enumerate(entries):
        place: dict[str, Any] = {"device": "cuda:0"}
        if position > len(entries) * 0.7:
            place = {"device": "cpu", "offload": None}
        if position > len(entries) * 0.85:
            place = {"device": "meta", "offload": "disk", "provenance": "offloaded"}
        began = (430 + position * 8200 / len(entries)) * MS
        made.tensor(
            name,
            shape,
            file=shard_name(0, 1),
            span=weights,
            thread=7101,
            read_start_ns=int(began),
            read_end_ns=int(began + 20 * MS),
            convert_start_ns=int(began + MS),
            convert_end_ns=int(began + 21 * MS),
            placed_ns=int(began + 24 * MS),
            **place,
        )
    size = sum(tensor.stored_bytes or 0 for tensor in made.tensors)
    made.file(
        shard_name(0, 1),
        size=size,
        shard=0,
        format="safetensors",
        resident_before=0.4,
        resident_after=1.0,
        read_bytes=size,
    )
    for number in range(100):
        made.sample(
            number * 90,
            300 * MB + number * 4 * MB,
            100 * MB + number * 21 * MB,
            int(min(number / 70, 1) * 1_640 * MB),
        )
    return made.trace()


def generation_a() -> Trace:
    """A 4.48 load: shard spans, parameters initialised first, a keyword ignored, trouble of our own."""
    made = Builder()
    made.environment.update(transformers="4.48.3", generation="A")
    made.request["keywords"] = {"dtype": "bfloat16"}
    made.request["ignored"] = [{"keyword": "dtype", "versions": ">=4.56"}]
    made.header["lost"] = {"events": 12}
    made.header["errors"] = [
        {"hook": "tie_weights", "message": "AttributeError: 'NoneType' object has no attribute 'shape'"}
    ]
    root = made.span(
        None,
        "load",
        "LlamaForCausalLM",
        0,
        8000,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3180",
        rss_peak_bytes=5_900 * MB,
        rss_anon_start_bytes=200 * MB,
        rss_file_start_bytes=90 * MB,
        rss_anon_bytes=4_400 * MB,
        rss_file_bytes=100 * MB,
    )
    made.span(
        root, "config", "config.json", 3, 40, "PretrainedConfig.from_pretrained", "configuration_utils.py:498"
    )
    made.span(root, "resolve", "weights", 41, 90, "cached_file", "utils/hub.py:240")
    made.span(
        root,
        "instantiate",
        "LlamaForCausalLM",
        91,
        3900,
        "LlamaForCausalLM.__init__",
        "models/llama/modeling_llama.py:1080",
        rss_peak_bytes=4_500 * MB,
    )
    weights = made.span(
        root,
        "weights",
        "LlamaForCausalLM",
        3901,
        7900,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4480",
        rss_peak_bytes=5_900 * MB,
    )
    entries = names_and_shapes(22, 2048)
    sizes = []
    for shard in range(3):
        start = 3950 + shard * 1300
        span = made.span(
            weights,
            "shard",
            shard_name(shard, 3),
            start,
            start + 1290,
            "load_state_dict",
            "modeling_utils.py:520",
            rss_peak_bytes=5_000 * MB + shard * 450 * MB,
        )
        part = entries[shard * len(entries) // 3 : (shard + 1) * len(entries) // 3]
        sizes.append(sum(2 * _count(shape) for _, shape in part))
        for position, (name, shape) in enumerate(part):
            began = int((start + 5 + position * 1200 / len(part)) * MS)
            made.tensor(
                name,
                shape,
                dtype="float32",
                file=shard_name(shard, 3),
                span=span,
                read_start_ns=began,
                read_end_ns=began + 9 * MS,
                placed_ns=began + 14 * MS,
            )
    for number in range(30):
        made.span(
            root,
            "tie",
            f"tie {number}",
            7905 + number * 2,
            7906.5 + number * 2,
            "PreTrainedModel.tie_weights",
            "modeling_utils.py:1990",
        )
    for shard, size in enumerate(sizes):
        made.file(
            shard_name(shard, 3),
            size=size + 8192,
            shard=shard,
            format="safetensors",
            resident_before=1.0,
            resident_after=1.0,
            read_bytes=size,
        )
    return made.trace()


def hostile() -> Trace:
    """Names that try to steer the terminal, to be markup, or to break the layout."""
    made = Builder()
    made.request["model"] = "\x1b]0;owned\x07[red]evil[/red]\x1b[2J\u202egnp.exe"
    root = made.span(
        None,
        "load",
        "[bold]x[/bold]\n\r\x1b[31mred",
        0,
        100,
        "[/]\x1b[1A.from_pretrained",
        "a[link=http://x]b:1",
        status="error",
        attributes={"error": "bad \x1b[5m[blink]\x07 value"},
    )
    made.span(root, "weights", "模型权重" * 30, 1, 90, "模" * 80, "x" * 300 + ".py:1")
    made.tensor(
        "\x9b31m[red]" + "layers.999999999999.weight" * 20,
        [4],
        file="[/red]\x1b[0m",
        span=2,
        read_start_ns=2 * MS,
        read_end_ns=3 * MS,
    )
    made.tensor("\ud800surrogate\u200b", [4], file="\ud83d", span=2, read_start_ns=2 * MS, read_end_ns=3 * MS)
    made.file("\x1b[8mhidden\x1b[0m[/]", "missing", asked_by=root)
    made.outcome = {
        "status": "error",
        "error": {"type": "\x1b[31mE", "message": "[/red]\x1b[2J boom\nsecond line"},
    }
    return made.trace()


def deep(levels: int = 3000) -> Trace:
    """A tree deeper than Python's recursion limit."""
    made = Builder()
    parent = made.span(None, "load", "Deep", 0, levels * 2 + 10, "Deep.from_pretrained")
    for level in range(levels):
        parent = made.span(
            parent, "config", f"level {level}", level + 1, levels * 2 - level, f"function_{level}"
        )
    return made.trace()


def empty() -> Trace:
    """A trace without a single row: a load that died before its first event."""
    made = Builder()
    made.outcome = {"status": "killed", "signal": "SIGKILL"}
    return made.trace()


ALL = {
    "sharded": sharded,
    "lazy": lazy,
    "killed": killed,
    "failing": failing,
    "pickled": pickled,
    "offloaded": offloaded,
    "generation_a": generation_a,
}
"""The traces that the views are shown with in snapshots."""

"""A pipeline of diffusers: two models of its own and one of transformers, one ledger by their names."""

from __future__ import annotations

import json

import torch
import transformers

NEEDS = ("diffusers",)
SPARSE = True
PARTS = {"vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel"}


def make(folder):
    import diffusers

    (folder / "words").mkdir()
    (folder / "words" / "vocab.json").write_text(json.dumps({"a</w>": 0, "<|endoftext|>": 1, "a": 2}))
    (folder / "words" / "merges.txt").write_text("#version: 0.2\n")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=16,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1)
    text = transformers.CLIPTextConfig(
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=8,
        bos_token_id=1,
        eos_token_id=1,
    )
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "words"),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "model")


def load(folder):
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / "model", dtype=torch.float16)
    whole = type("StableDiffusionPipeline", (torch.nn.Module,), {})().eval()
    for name in PARTS:
        setattr(whole, name, getattr(pipeline, name))
    return whole, pipeline


def check(trace, model, folder):
    (load,) = trace.loads
    assert (load.request["what"], load.attributes["returned"]) == ("pipeline", "StableDiffusionPipeline")
    assert sorted(load.attributes["modules"]) == sorted(PARTS.values())
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in parameters} == {"checkpoint"}
    assert {(row.stored_dtype, row.dtype) for row in parameters} == {("float32", "float16")}
    for row in parameters:
        part, _, key = row.name.partition(".")
        assert str(folder / "model" / part) in str(row.file) or part == "text_encoder"
        assert row.keys[0].endswith(key)
    below = {span.name for span in trace.spans if span.parent == load.span and span.phase == "load"}
    assert below == {*PARTS.values(), "DDIMScheduler"}
    configs = {file.path for file in trace.files if file.name.endswith(".json") and file.path}
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert str(folder / "model" / name) in configs

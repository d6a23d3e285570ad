"""A model of diffusers whose tensors are copied into it, from two shards."""

from __future__ import annotations

NEEDS = ("diffusers",)
SPARSE = True


def make(folder):
    import diffusers

    diffusers.UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
    ).save_pretrained(folder / "model", max_shard_size="30KB")


def load(folder):
    import diffusers

    return diffusers.UNet2DModel.from_pretrained(folder / "model", low_cpu_mem_usage=False)


def check(trace, model, folder):
    (load,) = trace.loads
    assert load.name == "UNet2DModel"
    assert {row.provenance for row in trace.tensors} == {"checkpoint"}
    assert {row.file for row in trace.tensors} == {
        path.name for path in (folder / "model").glob("*.safetensors")
    }
    assert len({row.file for row in trace.tensors}) > 1

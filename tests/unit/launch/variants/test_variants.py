"""Variants as the command line writes them, and the order in which they run."""

from __future__ import annotations

import json

import pytest

from hftrace.errors import UsageError
from hftrace.launch.request import LoadSpec
from hftrace.launch.variants.rounds import file_name, file_names, order_of, varied
from hftrace.launch.variants.specs import PRESETS, VariantSpec, distinct, grid, parse_variant


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_a_variant(name):
    spec = parse_variant(name)
    assert spec.name == name
    for key, value in PRESETS[name].items():
        if key.startswith("env."):
            assert spec.environment[key[4:]] == value
        else:
            assert spec.keywords[key] == value
    assert spec.python is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("device-map=cpu", VariantSpec("device-map=cpu", {"device_map": "cpu"})),
        ("device-map=cuda:0", VariantSpec("device-map=cuda:0", {"device_map": "cuda:0"})),
        (
            "bf16+no-async",
            VariantSpec("bf16+no-async", {"dtype": "bfloat16"}, {"HF_DEACTIVATE_ASYNC_LOAD": "1"}),
        ),
        ("x: low-cpu-mem+bf16", VariantSpec("x", {"low_cpu_mem_usage": True, "dtype": "bfloat16"})),
        (
            "mine: bf16, device_map=auto, env.HF_X=1, python=/a/b/python",
            VariantSpec("mine", {"dtype": "bfloat16", "device_map": "auto"}, {"HF_X": "1"}, "/a/b/python"),
        ),
        (
            'split: device_map={"": "cpu", "lm_head": "disk"}, low_cpu_mem_usage=True, revision=none',
            VariantSpec(
                "split",
                {
                    "device_map": {"": "cpu", "lm_head": "disk"},
                    "low_cpu_mem_usage": True,
                    "revision": None,
                },
            ),
        ),
        ("dtype=float16", VariantSpec("dtype=float16", {"dtype": "float16"})),
        ("n: max_memory={\"cpu\": \"1GB\"}", VariantSpec("n", {"max_memory": {"cpu": "1GB"}})),
    ],
)  # fmt: skip
def test_texts_and_what_they_mean(text, expected):
    assert parse_variant(text) == expected


def test_a_later_item_wins():
    assert parse_variant("x: bf16, dtype=float32").keywords == {"dtype": "float32"}


def test_a_device_map_from_a_file(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"model": 0}))
    assert parse_variant(f"device-map={path}").keywords == {"device_map": {"model": 0}}
    with pytest.raises(UsageError, match="cannot read the device map"):
        parse_variant(f"device-map={tmp_path / 'none.json'}")


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("fast-init=false", {"_fast_init": False}),
        ("attn-implementation=eager", {"attn_implementation": "eager"}),
        (
            "x: low-cpu-mem-usage=true, attn_implementation=sdpa",
            {"low_cpu_mem_usage": True, "attn_implementation": "sdpa"},
        ),
    ],
)
def test_keywords_may_be_spelt_as_options_of_a_load(text, keywords):
    assert parse_variant(text).keywords == keywords
    key, _, value = text.rpartition(": ")[2].partition(", ")[0].partition("=")
    assert grid([f"{key}={value}"])[0].keywords.items() <= keywords.items()


@pytest.mark.parametrize("text", ["nonsense", "x: nonsense", "", "x:", "x: a={b}", 'x: a="b'])
def test_what_is_no_variant(text):
    with pytest.raises(UsageError) as caught:
        parse_variant(text)
    assert "\n" not in str(caught.value)


def test_a_sweep_is_a_grid():
    specs = grid(["dtype=bfloat16,float32", "device_map=none,cpu"])
    assert [spec.name for spec in specs] == [
        "dtype=bfloat16 device_map=none",
        "dtype=bfloat16 device_map=cpu",
        "dtype=float32 device_map=none",
        "dtype=float32 device_map=cpu",
    ]
    # None is "not given", and not a value.
    assert specs[0].keywords == {"dtype": "bfloat16"}
    assert specs[3].keywords == {"dtype": "float32", "device_map": "cpu"}


@pytest.mark.parametrize("axes", [["dtype"], ["dtype="], ["=x"], ["dtype=a", "dtype=b"]])
def test_what_is_no_sweep(axes):
    with pytest.raises(UsageError):
        grid(axes)


def test_variants_have_names_of_their_own():
    two = [parse_variant("bf16"), parse_variant("fp32")]
    assert distinct(two) == two
    with pytest.raises(UsageError, match="two variants are called bf16"):
        distinct([*two, parse_variant("bf16")])
    with pytest.raises(UsageError, match="nothing to compare"):
        distinct(two[:1])


def test_rounds_take_turns():
    names = ["a", "b", "c"]
    assert order_of(names, 1) == names
    assert order_of(names, 2) == names[::-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bf16", "bf16"),
        ("dtype=a device_map=cpu", "dtype=a-device_map=cpu"),
        ("../x", ".._x"),
        ("é", "variant"),
    ],
)
def test_names_of_files(name, expected):
    found = file_name(name)
    assert "/" not in found
    assert found == expected or name == "../x"


def test_what_a_variant_says_wins_over_what_is_common():
    common = LoadSpec("m", keywords={"dtype": "float32", "device_map": "auto", "revision": "v2"})
    assert varied(common, parse_variant("plain"), "x").keywords == common.keywords
    own = varied(common, parse_variant("x: torch_dtype=bfloat16, device_map=cpu"), "x").keywords
    assert own == {"torch_dtype": "bfloat16", "device_map": "cpu", "revision": "v2"}
    # An axis's "none" takes away what is common.
    swept = varied(common, grid(["device_map=none,cpu"])[0], "x").keywords
    assert swept == {"dtype": "float32", "revision": "v2"}
    assert varied(common, parse_variant("offload"), "there").keywords["offload_folder"] == "there"


def test_no_two_variants_write_the_same_file():
    assert file_names(["a b", "a-b", "c", "a/b"]) == {"a b": "a-b", "a-b": "a-b.2", "c": "c", "a/b": "a-b.3"}


def test_what_a_variant_is_called_has_no_secret_in_it():
    given = [
        "token=Opaque-1-x",
        "token=Opaque-2-x",
        "env.DB_PASSWORD=Opaque-3-x, bf16",
        "mine: token=Opaque-4-x",
    ]
    specs = distinct([parse_variant(text) for text in given])
    names = ["token=[removed]", "token=[removed] (2)", "env.DB_PASSWORD=[removed], bf16", "mine"]
    assert [spec.name for spec in specs] == names
    assert specs[1].keywords == {"token": "Opaque-2-x"}
    assert specs[2].environment == {"DB_PASSWORD": "Opaque-3-x"}
    assert [spec.name for spec in grid(["token=Opaque-5-x,Opaque-6-x"])] == ["token=[removed]"] * 2
    assert [file_name(name) for name in names[:2]] == ["token-removed", "token-removed-2"]

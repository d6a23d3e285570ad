"""What was asked for, held against what the finished model has."""

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import catalogue, findings
from hftrace.analysis.findings.rules import CONCERNS


def loaded(keywords, got=None, tensors=(), uses=None, **request):
    """A load of one model: its keywords, what the model says, and ``(name, dtype, more)`` of tensors."""
    made = Builder()
    asked = {"class": "AutoModel", "model": "m", "what": "model", "keywords": keywords, **request}
    if uses is not None:
        asked["uses"] = uses
    attributes = {"request": asked}
    if got is not None:
        attributes["got"] = {"class": "ToyModel", **got}
    load = made.span(None, "load", "ToyModel", 0, 10, attributes=attributes)
    for name, dtype, *more in tensors:
        made.tensor(name, [8], dtype=dtype, load=load, **(more[0] if more else {}))
    return made.trace()


def found(trace, rule="R32"):
    return [finding for finding in findings(trace) if finding.rule == rule]


WEIGHTS = [("layers.0.a.weight", "bfloat16"), ("layers.1.a.weight", "bfloat16"), ("head.weight", "bfloat16")]


@pytest.mark.parametrize("keyword", ["dtype", "torch_dtype"])
def test_another_dtype_than_asked(keyword):
    (said,) = found(loaded({keyword: "float32"}, {}, WEIGHTS))
    assert said.title == "Asked for float32, got bfloat16"
    assert said.evidence.startswith(f"{keyword}=float32 was asked for. All 3 parameters, 48 B,")
    assert "layers.*.a" in said.evidence
    assert said.cost_bytes is None, "fewer bytes than asked for"
    assert said.concerns == "asked"


def test_as_asked_is_nothing_and_so_is_what_was_not_asked():
    assert found(loaded({"dtype": "bfloat16"}, {}, WEIGHTS)) == []
    assert found(loaded({"dtype": "auto"}, {"dtype": "bfloat16"}, WEIGHTS)) == []
    assert found(loaded({}, {"dtype": "float32"}, WEIGHTS)) == []


def test_an_older_trace_says_nothing():
    assert found(loaded({"dtype": "float32"}, None, WEIGHTS)) == []


def test_modules_that_are_kept_in_float32():
    tensors = [*WEIGHTS, ("layers.0.wo.weight", "float32"), ("layers.1.wo.weight", "float32")]
    (said,) = found(loaded({"dtype": "bfloat16"}, {"kept_in_float32": ["wo", "gate"]}, tensors))
    assert said.title == "Kept in float32, though bfloat16 was asked for: wo"
    assert "2 parameters of 64 B" in said.evidence
    assert said.cost_bytes == 32
    # The same tensors in a class that keeps nothing so are a dtype that was not got.
    (said,) = found(loaded({"dtype": "bfloat16"}, {}, tensors))
    assert said.title == "Asked for bfloat16, got float32 in 2 parameters"


def test_what_a_quantiser_or_an_adapter_brings_is_not_what_dtype_is_about():
    tensors = [
        ("a.weight", "bfloat16"),
        ("a.weight_scale_inv", "float32"),
        ("a.lora_A.default.weight", "float32"),
    ]
    quantised = {"quantization": {"method": "fp8", "quantizer": "FineGrainedFP8HfQuantizer"}}
    assert found(loaded({"dtype": "bfloat16"}, quantised, tensors)) == []


PARTS = {
    "sub_configs": ["text_config", "vision_config"],
    "parts": [
        {"prefix": "model.visual", "config": "vision_config", "attn_implementation": "eager"},
        {"prefix": "model.text", "config": "text_config", "attn_implementation": "sdpa"},
    ],
}
COMPOSITE = [
    ("model.visual.a.weight", "float32"),
    ("model.text.a.weight", "float32"),
    ("model.projector.weight", "float32"),
]


def test_a_dtype_for_each_part():
    asked = {"vision_config": "float16", "text_config": "float32", "": "bfloat16"}
    said = found(loaded({"dtype": asked}, PARTS, COMPOSITE))
    assert [finding.title for finding in said] == [
        "Asked for float16, got float32 in model.visual",
        "Asked for bfloat16, got float32",
    ]
    assert "model.projector" in said[1].evidence
    assert said[0].cost_bytes == 16


def test_a_part_that_the_model_has_not_and_one_that_was_not_found():
    (said,) = found(loaded({"dtype": {"vison_config": "float16"}}, PARTS, COMPOSITE))
    assert "no such part" in said.title
    assert "text_config, vision_config" in said.evidence
    unknown = {"sub_configs": PARTS["sub_configs"], "parts": PARTS["parts"][:1]}
    assert found(loaded({"dtype": {"text_config": "float16", "": "float16"}}, unknown, COMPOSITE)) == []


def test_devices():
    places = {"a": 0, "b": "cpu", "": "cuda:1", "c": "disk"}
    tensors = [
        ("a.weight", "float32", {"device": "cuda:0"}),
        ("b.weight", "float32", {"device": "cuda:1"}),
        ("c.weight", "float32", {"device": "meta", "offload": "disk", "provenance": "offloaded"}),
        ("d.weight", "float32", {"device": "cuda:1"}),
    ]
    (said,) = found(loaded({"device_map": places}, {}, tensors))
    assert said.title == "Asked for cpu, got cuda:1 for 1 parameter"
    assert "puts b on cpu" in said.evidence
    for asked in ("auto", "cuda", None):
        assert found(loaded({"device_map": asked}, {}, [("a.weight", "float32", {"device": "cuda:1"})])) == []
    assert found(loaded({"device_map": 0}, {}, [("a.weight", "float32", {"device": "xpu:0"})])) == []
    assert found(loaded({"device_map": "cpu"}, {}, [("a.weight", "float32", {"device": "cuda:0"})])) != []


def test_attention():
    (said,) = found(loaded({"attn_implementation": "sdpa"}, {"attn_implementation": "sdpa", **PARTS}))
    assert said.title == "Asked for sdpa attention, got eager in model.visual"
    assert found(loaded({"attn_implementation": {"text_config": "sdpa"}}, PARTS)) == []
    kernel = {"attn_implementation": "kernels-community/flash-attn2"}
    assert found(loaded({"attn_implementation": "flash_attention_2"}, kernel)) == []
    assert found(loaded({"attn_implementation": "sdpa"}, {})) == []


def test_quantisation():
    (said,) = found(loaded({"load_in_8bit": True}, {}))
    assert said.title == "Asked for bitsandbytes, got a model that is not quantised"
    gptq = {"quantization": {"method": "gptq", "quantizer": "GptqHfQuantizer"}}
    (said,) = found(loaded({}, gptq, quantization="bitsandbytes"))
    assert said.title == "Asked for bitsandbytes, got gptq"
    assert found(loaded({}, gptq, quantization="gptq")) == []
    assert found(loaded({}, gptq)) == []


def test_ties():
    tied = [
        ("a.weight", "float32"),
        ("head.weight", "float32", {"provenance": "tied", "tied_to": "a.weight"}),
    ]
    (said,) = found(loaded({"tie_word_embeddings": True}, {}, tied[:1]))
    assert "got none" in said.title
    assert found(loaded({"tie_word_embeddings": True}, {}, tied)) == []
    (said,) = found(loaded({"tie_word_embeddings": False}, {"tie_word_embeddings": True}, tied))
    assert "got tied ones" in said.title


def test_class_and_revision():
    (said,) = found(loaded({}, {"classes": ["ToyModel", "ToyBase"]}, **{"class": "OtherModel"}))
    assert said.title == "Asked for OtherModel, got ToyModel"
    for name in ("ToyModel", "ToyBase", "AutoModelForCausalLM", "timm.create_model", None):
        assert found(loaded({}, {"classes": ["ToyModel", "ToyBase"]}, **{"class": name})) == []
    asked, other = "a" * 40, "b" * 40
    (said,) = found(loaded({}, {"commit": other}, revision=asked))
    assert said.title == f"Asked for revision {'a' * 12}, got {'b' * 12}"
    for revision in (other, "main", None):
        assert found(loaded({}, {"commit": other}, revision=revision)) == []


def test_keywords_that_went_nowhere():
    uses = {"torch_dtypes": "nowhere", "mirror": "nowhere", "dtype": "loader", "odd": "unknown"}
    said = found(loaded(dict.fromkeys(uses, 1), {}, uses=uses), "R26")
    assert [finding.title for finding in said] == ["torch_dtypes has no effect", "mirror has no effect"]
    assert [finding.advice for finding in said] == [
        "Did you mean dtype?",
        "Leave it out, or use a version that honours it.",
    ]


def test_code_of_another_folder():
    (said,) = found(loaded({}, {"foreign_files": ["modeling_x.py"], "source": "/cache/x.py"}), "R37")
    assert "modeling_x.py in m" in said.evidence
    assert "/cache/x.py" in said.evidence
    assert found(loaded({}, {"source": "/cache/x.py"}), "R37") == []


def test_loads_are_held_against_their_own_requests():
    made = Builder()
    for dtype, got in (("float32", "float32"), ("float32", "bfloat16")):
        request = {"class": "AutoModel", "model": "m", "keywords": {"dtype": dtype}}
        load = made.span(None, "load", "A", 0, 1, attributes={"request": request, "got": {"class": "A"}})
        made.tensor("a.weight", [8], dtype=got, load=load)
    (said,) = found(made.trace())
    assert said.title == "load 2: Asked for float32, got bfloat16"
    assert "All 1 parameter," in said.evidence


@pytest.mark.parametrize("junk", [[], "x", 3, None, {"": []}, {"a": {"b": 1}}, [{}], [[1]], True])
def test_nothing_in_a_file_is_trusted(junk):
    names = ("dtype", "device_map", "attn_implementation", "load_in_8bit", "tie_word_embeddings")
    got = dict.fromkeys(
        (
            *("class", "classes", "parts", "sub_configs", "kept_in_float32", "quantization", "foreign_files"),
            *("auto_map", "registered", "load_hooks", "module", "source"),
        ),
        junk,
    )
    trace = loaded(dict.fromkeys(names, junk), {**got, "commit": junk}, WEIGHTS, uses=junk, revision=junk)
    for finding in findings(trace):
        assert finding.title


def test_wrong_ones_come_first_and_every_kind_says_what_it_concerns():
    kinds = catalogue()
    assert {kind.concerns for kind in kinds} <= set(CONCERNS) - {"other"}
    made = Builder()
    request = {"keywords": {"dtype": "float32"}, "uses": {"x": "nowhere"}, "class": "A"}
    attributes = {"request": request, "got": {"class": "A"}}
    load = made.span(None, "load", "A", 0, 2000, attributes=attributes)
    made.span(load, "import", "x", 0, 1900)
    made.tensor("a.weight", [8], dtype="bfloat16", load=load)
    made.tensor(
        "b.weight", [8], stored_dtype=None, dtype="float32", keys=[], provenance="initialized", load=load
    )
    made.header["lost"] = {"events": 12}
    order = [finding.concerns for finding in findings(made.trace())]
    assert order == ["asked", "weights", "keyword", "time", "recorder"]
    assert [bool(finding.view) for finding in findings(made.trace())] == [True, True, False, True, False]


@pytest.mark.parametrize("evidence", ["cast", "cast_through", "replaced", "verified"])
def test_what_was_done_after_the_load_is_not_what_was_got(evidence):
    tensors = [("a.weight", "float32", {"evidence": evidence})]
    assert found(loaded({"dtype": "bfloat16"}, {}, tensors)) == []


def test_a_model_that_was_to_be_quantised_no_longer():
    asked = {"quantization": "compressed-tensors", "dequantize": True}
    assert found(loaded({"quantization_config": {}}, {}, WEIGHTS, **asked)) == []
    (said,) = found(loaded({"quantization_config": {}}, {}, WEIGHTS, **{**asked, "dequantize": False}))
    assert said.title == "Asked for compressed-tensors, got a model that is not quantised"


def test_another_number_of_bits_than_asked():
    asked = {"quantization": "bitsandbytes", "quantization_bits": 8}
    got = {"method": "bitsandbytes", "quantizer": "Bnb4BitHfQuantizer", "bits": 4}
    (said,) = found(loaded({}, {"quantization": got}, WEIGHTS, **asked))
    assert said.title == "Asked for 8 bits, got 4"
    assert found(loaded({}, {"quantization": {**got, "bits": 8}}, WEIGHTS, **asked)) == []
    assert found(loaded({}, {"quantization": {**got, "bits": None}}, WEIGHTS, **asked)) == []

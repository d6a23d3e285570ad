"""What was asked of a load."""

import dataclasses

import pytest

import handmade_memory
from handmade import MB
from hftrace.analysis.ending.prediction import predicted_device_bytes
from hftrace.analysis.request import whole_model_device
from hftrace.schema.model import Facts


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        ("cuda:0", "cuda:0"),
        ("cuda", "cuda:0"),
        (0, "cuda:0"),
        ("1", "cuda:1"),
        ({"": "cuda:0"}, "cuda:0"),
        ({"": 0}, "cuda:0"),
        ("xpu:1", "xpu:1"),
        ("cpu", "cpu"),
        ("auto", None),
        ("disk", None),
        (None, None),
        ({"": 0, "lm_head": "cpu"}, None),
        ("Ω!", None),
        (True, None),
    ],
)
def test_where_the_whole_model_goes(asked, device):
    trace = handmade_memory.on_device()
    keywords = {**trace.request["keywords"], "device_map": asked}
    trace = dataclasses.replace(trace, request=Facts({**trace.request, "keywords": keywords}))
    assert whole_model_device(trace) == device
    assert predicted_device_bytes(trace, "cuda:0") == (640 * MB if device == "cuda:0" else None)

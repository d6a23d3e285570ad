"""Traces made by hand of weights that are spread over devices, and of passes that bring them in."""

from __future__ import annotations

from handmade import MB, MS, Builder

LAYERS = 3
MODULES = {"embed": "0", **{f"layers.{layer}": "cpu" if layer == 0 else "disk" for layer in range(LAYERS)}}


def spread(**header):
    """Returns a load with a computed map: the embedding on a GPU, one layer on the CPU, two on disk."""
    made = Builder()
    made.request["keywords"] = {"device_map": "auto", "max_memory": {"0": 50 * MB, "cpu": "60MB"}}
    got = {"class": "Model", "device_map": MODULES}
    root = made.span(None, "load", "Model", 0, 100, attributes={"got": got})
    made.span(
        root, "device_map", "infer_auto_device_map", 10, 20,
        attributes={"largest_layer": {"bytes": 40 * MB, "names": ["layers.0", "layers.1"]}},
    )  # fmt: skip
    for began, limit in ((5, 90), (12, 50), (30, 10)):
        # What was asked for first, what decided, and what somebody asked for afterwards.
        limits = {"0": limit * MB, "cpu": 60 * MB}
        made.span(root, "device_map", "get_max_memory", began, began + 1, attributes={"limits": limits})
    written = {"files": 4, "bytes": 40 * MB, "duration_ns": 7, "format": "dat", "folder": "off"}
    weights = made.span(root, "weights", "w", 40, 90, attributes={"written": [written]})
    made.span(root, "dispatch", "d", 91, 95, attributes={"attached": {"hooks": 9, "offloaded": 4}})
    places = [("embed.weight", {"device": "cuda:0"})]
    for layer in range(LAYERS):
        place = {"device": "cpu"}
        if layer:
            place = {"device": "meta", "offload": "disk", "provenance": "offloaded"}
        places += [(f"layers.{layer}.{name}.weight", place) for name in ("a", "b")]
    for name, place in places:
        made.tensor(name, [5_000_000], file="model.safetensors", span=weights, **place)
    made.header.update(header)
    return made.trace()


def rows(passes, layers=LAYERS, **changes):
    """Returns what a module of each layer has moved."""
    sums = {"in": 5 * MS, "out": 2 * MS, "tensors": 1, "bytes": 10 * MB, **changes}
    row = [passes, sums["in"], sums["out"], passes * sums["tensors"], passes * sums["bytes"], 0, 0]
    return [[f"layers.{layer}.a", "Linear", *row] for layer in range(layers)]

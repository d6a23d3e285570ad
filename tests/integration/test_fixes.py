"""What findings recommend, tried: ``compare`` takes it, and the finding is gone with it.

Each case is a load that has the finding, and what mends it as a variant of ``compare`` writes it.
``tests/unit/project/test_fixes_are_tried.py`` has the list of all places that recommend anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import small_llama
import torch
import transformers

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.launch.request import LoadSpec
from hftrace.launch.tuning.settings import BOTH, from_findings, situation_of, variant
from hftrace.launch.variants.specs import parse_variant
from hftrace.synth import plan, write

pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.long]
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
DTYPE = "dtype" if VERSION >= (4, 56) else "torch_dtype"
EXPERTS = "mixtral-8x7b"


def llama(folder: Path, **settings: Any) -> None:
    """A checkpoint in float32, or in another dtype."""
    dtype = settings.pop("dtype", torch.float32)
    transformers.LlamaForCausalLM(small_llama.config(**settings)).to(dtype).save_pretrained(folder)


def experts(size: str) -> Callable[[Path], None]:
    return lambda folder: write(plan(EXPERTS, size=size), folder)


def wide(folder: Path) -> None:
    """300 MB in float16, of which a cast takes half a second of the readers' time."""
    llama(folder, dtype=torch.float16, hidden_size=1024, num_attention_heads=8, vocab_size=70_000)


@dataclass(frozen=True)
class Case:
    """A load with a finding, and what mends it."""

    finding: str
    make: Callable[[Path], Any]
    fix: str
    asked: tuple[str, ...] = ()
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = (99, 0)
    same_dtype: bool = True


CASES = [
    Case(
        "dtype-widened",
        lambda folder: llama(folder, dtype=torch.bfloat16),
        f"{DTYPE}=auto",
        ("--dtype", "float32"),
        same_dtype=False,
    ),
    Case("cast-in-flight", wide, f"{DTYPE}=auto", ("--dtype", "bfloat16"), same_dtype=False),
    Case(
        "merged-parts-kept",
        experts("700MB"),
        "env.MALLOC_MMAP_THRESHOLD_=131072",
        ("--dtype", "float32"),
        since=(5, 0),
    ),
    Case(
        "conversion-spike",
        experts("300MB"),
        "disable_mmap=False",
        ("--kwarg", "disable_mmap=true"),
        since=(5, 20),
    ),
    Case(
        "init-then-overwrite",
        lambda folder: llama(folder, hidden_size=512, intermediate_size=2048, vocab_size=32_000),
        "low_cpu_mem_usage=True",
        ("--no-fast-init",),
        until=(4, 51),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.finding)
def test_compare_and_tune_take_it(case, tmp_path, run_cli):
    if not case.since <= VERSION < case.until:
        pytest.skip("transformers has no such load")
    model, out = tmp_path / "model", tmp_path / "out"
    case.make(model)
    variants = ["--variant", "as-is: plain", "--variant", f"mended: {case.fix}"]
    arguments = ["compare", model, *case.asked, *variants, "--repeat", "1", "-o", out, "--json"]
    done = run_cli(*arguments, timeout=600)
    assert done.returncode == 0, done.stderr
    asked, mended = (hftrace.Trace.open(next(out.glob(f"{name}*.json*"))) for name in ("as-is", "mended"))
    said, left = ({each.name: each for each in findings(trace)} for trace in (asked, mended))
    finding = said[case.finding]
    spec = parse_variant(f"mended: {case.fix}")
    assert dict(finding.fix.keywords) == dict(spec.keywords)
    assert dict(finding.fix.environment) == dict(spec.environment)
    assert case.finding not in left
    assert not {each.name for each in left.values() if each.severity != "info"} - set(said)

    names = ("name", "shape", "provenance", "keys") + (("dtype",) if case.same_dtype else ())
    before, after = (
        [[getattr(row, name) for name in names] for row in each.tensors] for each in (asked, mended)
    )
    assert before == after

    # tune makes the same setting of it, which it tries for this load and this version.
    (setting,) = from_findings([finding])
    situation = situation_of(asked, LoadSpec(str(model), keywords=asked.request.keywords))
    assert setting.origin == finding.rule
    assert any(setting.fits(situation, objective) for objective in BOTH)
    made = variant("mended", [setting])
    assert (dict(made.keywords), dict(made.environment)) == (dict(spec.keywords), dict(spec.environment))


def test_the_dtype_that_the_program_casts_to(tmp_path):
    """R41: a program that casts is no variant of a load; asked for that dtype, the load gives the same."""
    llama(tmp_path)
    with hftrace.trace(None) as recorded:
        cast = transformers.LlamaForCausalLM.from_pretrained(tmp_path, **{DTYPE: torch.float32}).bfloat16()
    (finding,) = (each for each in findings(recorded.trace) if each.name == "cast-after-load")
    assert finding.fix.keywords == {DTYPE: "bfloat16"}
    with hftrace.trace(None) as recorded:
        asked = transformers.LlamaForCausalLM.from_pretrained(tmp_path, **finding.fix.keywords)
    assert "cast-after-load" not in {each.name for each in findings(recorded.trace)}
    for one, other in zip(cast.parameters(), asked.parameters(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.skipif(VERSION >= (5, 0), reason="5.x keeps a head of its own")
def test_a_head_of_its_own(tmp_path, run_cli):
    """R30: with the fix the model has the head that was trained; only --verify sees the difference."""
    model = tmp_path / "model"
    import_module("kinds.tied_own_key").make(make_folder(model))
    said = {}
    for name, *more in (("dropped",), ("kept", "--kwarg", "tie_word_embeddings=false")):
        out = tmp_path / f"{name}.json"
        done = run_cli("load", model, "--dtype", "bfloat16", "--verify", "-q", "-o", out, *more)
        assert done.returncode == 0, done.stderr
        said[name] = {each.name: each for each in findings(hftrace.Trace.open(out))}
    assert said["dropped"]["tied-over-own-key"].fix.keywords == {"tie_word_embeddings": False}
    assert "tied-over-own-key" not in said["kept"]
    assert not {each.name for each in said["kept"].values() if each.severity == "error"}


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path

"""Which distribution a package belongs to, and what it requires."""

from __future__ import annotations

from hftrace.replay.distributions import Distributions


def install(folder, directory, *requires, top_level=None):
    metadata = folder / directory
    metadata.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", "Name: x", *(f"Requires-Dist: {each}" for each in requires)]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n\nRequires-Dist: of-the-text\n")
    if top_level is not None:
        (metadata / "top_level.txt").write_text(top_level)


def test_requirements_without_those_of_extras(tmp_path):
    install(
        tmp_path,
        "torch-2.13.0+cpu.dist-info",
        "sympy>=1.13.3",
        "typing_extensions",
        'opt-einsum; extra == "optree"',
        'setuptools; python_version >= "3.12"',
    )
    assert Distributions().facts("torch", str(tmp_path)) == {
        "distribution": "torch",
        "version": "2.13.0+cpu",
        "requires": ["setuptools", "sympy", "typing-extensions"],
    }


def test_names_that_differ(tmp_path):
    install(tmp_path, "scikit_learn-1.7.dist-info", "numpy (>=1.22)")
    install(tmp_path, "Some.Thing-2.dist-info", top_level="other\nanother\n")
    found = Distributions()
    assert found.facts("sklearn", str(tmp_path))["distribution"] == "scikit-learn"
    assert found.facts("another", str(tmp_path))["distribution"] == "some-thing"
    assert found.facts("nobodys", str(tmp_path)) is None


def test_folders_without_metadata(tmp_path):
    found = Distributions()
    assert not found.has_metadata(str(tmp_path))
    assert not found.has_metadata(str(tmp_path / "gone"))
    assert found.facts("torch", str(tmp_path)) is None
    (tmp_path / "later-1.dist-info").mkdir()  # without METADATA
    assert Distributions().facts("later", str(tmp_path)) is None

"""Hand-made traces of imports."""

from __future__ import annotations

from handmade import Builder

SKLEARN = "if is_sklearn_available()"
SCIPY = "if is_scipy_available()"


def distribution(name, *requires):
    return {"distribution": name, "version": "1.0", "requires": list(requires)}


def session(version="4.57.6"):
    """A process that imports transformers, which brings scikit-learn because it is there."""
    made = Builder()
    made.environment["transformers"] = version
    made.environment["packages"] = {
        "transformers": {**distribution("transformers", "numpy"), "version": version},
        "torch": distribution("torch", "sympy"),
        "sympy": distribution("sympy"),
        "numpy": distribution("numpy"),
        "scipy": distribution("scipy", "numpy"),
        "sklearn": distribution("scikit-learn", "scipy", "numpy", "joblib"),
        "joblib": distribution("joblib"),
    }
    made.span(None, "import", "import transformers", 0, 1000, storage_read_bytes=4096)
    top = made.imported("transformers", None, 0, 1000, 200, importer="__main__", importer_line=3)
    torch = made.imported(
        "torch",
        top,
        0,
        300,
        200,
        importer="transformers.utils",
        importer_line=9,
        guard="if is_torch_available()",
    )
    made.imported("sympy", torch, 0, 100, importer="torch.fx", importer_line=2)
    inner = made.imported("transformers.generation", top, 300, 1000, 100, importer="transformers")
    sklearn = made.imported(
        "sklearn.metrics",
        inner,
        300,
        900,
        100,
        importer="transformers.generation",
        guard=SKLEARN,
        importer_line=29,
    )
    scipy = made.imported("scipy.stats", sklearn, 300, 700, 250, importer="sklearn.utils", importer_line=16)
    made.imported("numpy", scipy, 300, 350, importer="scipy._lib")
    made.imported(None, scipy, 0, 100, package="scipy", modules=60)
    made.imported(None, sklearn, 0, 40, package="json", modules=4, where="standard")
    made.imported(None, sklearn, 0, 60, package="joblib", modules=9, where=None)
    return made

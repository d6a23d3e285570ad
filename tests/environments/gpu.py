"""Runs the tests marked `gpu` on a machine without a GPU, on torch's own CUDA allocator.

    python tests/environments/gpu.py                       the newest transformers
    python tests/environments/gpu.py --ci                  one of each loader generation
    python tests/environments/gpu.py --only 4.48.3 -- -k out_of_memory
    python tests/environments/gpu.py --exec python -m hftrace load DIRECTORY --device-map cuda:0

DIRECTORY/cuda is a virtual environment with torch's CUDA build (some 5 GB on
disk) in front of the base environment, and a library, built from
cuda_stand_in.c, that takes the place of the CUDA runtime and the driver. It
has device out-of-memory errors are torch's real ones, what is computed is not. An NVML
belongs to it (nvml_stand_in.py, in the place of nvidia-ml-py), which counts
other processes and contexts as the driver of a real GPU does;
``CUDA_STAND_IN_NVML=0`` takes it away.

With ``--exec`` the rest of the line is run there, in place of the tests. Needs
Linux on x86-64, a C compiler and nm (binutils). The exit code is 0 where all
passed, 1 otherwise; that of the command with ``--exec``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make import ROOT, MakeError, add_selection, base_python, make, overlay, pip_install, selected
from versions import FIRST

SOURCE = Path(__file__).with_name("cuda_stand_in.c")
NVML = Path(__file__).with_name("nvml_stand_in.py")
PACKAGES = (FIRST[0].replace("==", "==="), "nvidia-cuda-crt==13.0.*")
"""The release as it is named in the registry, which is the CUDA build, and the headers that its own lack.
Torch 2.13.0 is built for CUDA 13.0."""
LIBRARIES = (
    "libtorch_cuda.so",
    "libc10_cuda.so",
    "libtorch_python.so",
    "libtorch_cpu.so",
    "libcaffe2_nvrtc.so",
)
REPLACED = ("cuda", "__cuda", "cublas", "cu")
"""Beginnings of the functions that the stand-in takes over."""
KEPT = ("cuFile", "cusparse", "cufft", "cudnn", "curand", "cusolver")
"""Beginnings of those that stay their libraries' own."""


def environment_of(directory: Path) -> Path:
    """The virtual environment with torch's CUDA build."""
    return directory / "cuda"


def make_cuda(directory: Path) -> Path:
    """Makes the environment and the stand-in, unless they are there; returns the stand-in's path.

    Raises:
        MakeError: Something could not be installed or built.
    """
    place = environment_of(directory)
    python = place / "bin" / "python"
    if not (place / ".complete").exists():
        print("cuda: installing torch's CUDA build", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip_install(python, *PACKAGES)
        # After its own packages come those of the base: addsitedir reads its .pth files, too.
        base = _packages(base_python(directory))
        (_packages(python) / "base.pth").write_text(f"import site; site.addsitedir({str(base)!r})\n")
        (place / ".complete").write_text("")
    return _build(place, _packages(python))


def _packages(python: Path) -> Path:
    version = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(version.stdout.strip())


def _imported(packages: Path) -> set[str]:
    """Returns the names of CUDA's functions that torch's libraries import."""
    libraries = [str(packages / "torch" / "lib" / name) for name in LIBRARIES]
    listed = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", *libraries], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines() if " U " in line}
    return {name for name in names if name.startswith(REPLACED) and not name.startswith(KEPT)}


def _build(place: Path, packages: Path) -> Path:
    """Builds the stand-in from its source, and what else torch imports as functions that do nothing."""
    folder = place / "stand-in"
    folder.mkdir(exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    shutil.copyfile(NVML, folder / "pynvml.py")
    library = folder / "libcuda.so.1"
    headers = next(packages.glob("nvidia/*/include/cuda_runtime_api.h")).parent
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-O1", "-fPIC", "-fvisibility=hidden", "-Wno-incompatible-pointer-types"]
    own = folder / "own.o"
    _run(*command, "-I", str(headers), "-c", str(SOURCE), "-o", str(own))
    defined = subprocess.run(["nm", "--defined-only", str(own)], check=True, capture_output=True, text=True)
    rest = _imported(packages) - {line.split()[-1] for line in defined.stdout.splitlines()}
    stubs = folder / "rest.c"
    exported = '__attribute__((visibility("default")))'
    stubs.write_text("".join(f"{exported} int {name}(void) {{ return 0; }}\n" for name in sorted(rest)))
    options = ("-fno-builtin", "-shared", "-Wl,-soname,libcuda.so.1", "-lpthread")
    _run(*command, str(own), str(stubs), *options, "-o", str(library))
    return library


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise MakeError(f"{shlex.join(command)} failed:\n{done.stdout[-3000:]}")


def variables(directory: Path, library: Path, version: str) -> dict[str, str]:
    """Returns the environment variables under which torch's CUDA build runs on the stand-in."""
    own = dict(os.environ)
    place = overlay(directory, version)
    nvml = [] if own.get("CUDA_STAND_IN_NVML") == "0" else [str(library.parent)]
    own["PYTHONPATH"] = os.pathsep.join([*([str(place)] if place is not None else []), *nvml])
    own["CUDA_STAND_IN_STATE"] = str(library.parent / "state")
    own["PATH"] = f"{environment_of(directory) / 'bin'}{os.pathsep}{own.get('PATH', '')}"
    own["LD_PRELOAD"] = str(library)
    # Torch opens libcuda.so.1 by its name.
    own["LD_LIBRARY_PATH"] = str(library.parent)
    # Triton would compile for a driver that can run what it compiled.
    own["TORCH_DISABLE_NATIVE_JIT"] = "1"
    own["HFTRACE_TEST_TRANSFORMERS"] = version
    return own


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(parser)
    parser.add_argument("--exec", action="store_true", help="run the command that follows, and no tests")
    arguments = sys.argv[1:]
    marks = [arguments.index(mark) for mark in ("--exec", "--") if mark in arguments]
    at = min(marks, default=len(arguments))
    options = parser.parse_args(
        arguments[:at] + [mark for mark in arguments[at : at + 1] if mark == "--exec"]
    )
    rest = arguments[at + 1 :]
    versions = selected(parser, options)
    try:
        make(options.directory, versions)
        library = make_cuda(options.directory)
    except (MakeError, OSError, subprocess.CalledProcessError) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    if options.exec:
        return subprocess.run(rest, env=variables(options.directory, library, versions[0])).returncode
    python = environment_of(options.directory) / "bin" / "python"
    failed = []
    for version in versions:
        print(f"\n=== transformers {version}, torch's CUDA build on the stand-in", flush=True)
        command = [str(python), "-m", "pytest", "-m", "gpu", "tests/integration", *rest]
        if subprocess.run(command, cwd=ROOT, env=variables(options.directory, library, version)).returncode:
            failed.append(version)
    if failed:
        print(f"gpu.py: failed with {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

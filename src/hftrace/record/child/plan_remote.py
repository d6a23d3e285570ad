"""A checkpoint of the Hub without its weights: small files, and of each weight file its header.

safetensors files say in their first bytes which tensors they hold. They are asked for by range, as
``huggingface_hub.HfApi.parse_safetensors_file_metadata`` does, and stand at the head of a sparse file
of the true size: the loader finds all that it looks for, and a plan reads nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hftrace.record.child.plan_operations import UnknownError

HEADER = ".safetensors"
WEIGHTS = (HEADER, ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ot", ".onnx", ".npz")
SMALL = ("*.json", "*.py", "*.jinja")
LEFT_OUT = ("tokenizer.json", "vocab.json")
"""Of what is small, what no model is made of."""
FIRST_BYTES = 100_000
"""Asked for at once: most headers fit into it."""
MAX_HEADER_BYTES = 100_000_000
"""The most that safetensors itself allows."""
OF_THE_HUB = ("revision", "code_revision", "force_download", "resume_download", "proxies", "cache_dir")
"""Keywords that say where a checkpoint of the Hub comes from, and mean nothing to a folder."""


def weightless(model: str, keywords: dict[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """Returns what to load in the place of a model, and with which keywords.

    Args:
        model: A folder, a file, or an id of the Hub.
        keywords: Of ``from_pretrained``.
        folder: Where a copy without weights may be made.

    Raises:
        UnknownError: It is on the Hub, and its weights are in files whose headers do not say what is in them.
    """
    import huggingface_hub

    offline = huggingface_hub.constants.HF_HUB_OFFLINE or keywords.get("local_files_only")
    if os.path.exists(model) or model.count("/") > 1 or keywords.get("gguf_file") or offline:
        return model, keywords
    api = huggingface_hub.HfApi(token=keywords.get("token"))
    info = _info(api, model, keywords.get("revision"))
    if info is None:
        return model, keywords  # the loader takes what is in the cache, or says that there is nothing
    sizes = {each.rfilename: each.size for each in info.siblings or ()}
    if "adapter_config.json" in sizes:
        return model, keywords  # an adapter is small, and its base is another repository
    headers = [name for name in sizes if name.endswith(HEADER) and isinstance(sizes[name], int)]
    if not headers or keywords.get("use_safetensors") is False:
        return model, keywords  # what is here already needs no download, and the rest is refused
    place = folder / "hub" / model.rpartition("/")[2]
    api.snapshot_download(
        model, revision=info.sha, local_dir=place, allow_patterns=list(SMALL), ignore_patterns=list(LEFT_OUT)
    )
    for name in headers:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_header(api, model, name, str(info.sha)))
        os.truncate(path, int(sizes[name] or 0))
    return str(place), {name: value for name, value in keywords.items() if name not in OF_THE_HUB}


def _info(api: Any, model: str, revision: Any) -> Any:
    """Returns what the Hub says of a repository; None where it cannot be asked now.

    Raises:
        OSError: It answers that there is none for this caller.
    """
    from huggingface_hub import errors

    try:
        return api.model_info(model, revision=revision, files_metadata=True)
    except errors.GatedRepoError:
        why = f"{model} is gated: ask for access on its page, and log in (hf auth login)"
    except errors.RepositoryNotFoundError:
        why = f"the Hub has no model {model}, or a private one: check the name, and log in (hf auth login)"
    except errors.RevisionNotFoundError:
        why = f"{model} has no revision {revision}"
    except Exception:
        return None
    raise OSError(why)


def _header(api: Any, repo: str, name: str, commit: str) -> bytes:
    hub: Any = sys.modules["huggingface_hub"]
    url = hub.hf_hub_url(repo, name, revision=commit, endpoint=api.endpoint)

    def ask(last: int) -> bytes:
        headers = {**hub.utils.build_hf_headers(token=api.token), "range": f"bytes=0-{last}"}
        answer = hub.utils.get_session().get(url, headers=headers, timeout=30)
        hub.utils.hf_raise_for_status(answer)
        return bytes(answer.content[: last + 1])

    found = ask(FIRST_BYTES)
    length = 8 + int.from_bytes(found[:8], "little")
    if len(found) < 8 or length > MAX_HEADER_BYTES:
        raise UnknownError(f"{name} of {repo} is no safetensors file")
    return found[:length] if length <= len(found) else ask(length - 1)


def refuse_weights() -> None:
    """Makes the Hub's client refuse to download a weight file in this process, which is made for one plan."""
    from huggingface_hub import file_download

    for name in ("http_get", "xet_get"):
        function = getattr(file_download, name, None)
        if function is not None:
            setattr(file_download, name, _refusing(function))


def _refusing(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **keywords: Any) -> Any:
        for name in _names(args, keywords):
            if name.endswith(WEIGHTS):
                raise UnknownError(
                    f"{name.rpartition('/')[2]} is not on this machine, and a plan downloads no weights: "
                    "download it first (hf download), or name a repository with safetensors files"
                )
        return function(*args, **keywords)

    return guarded


def _names(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> list[str]:
    given = [*args[:1], keywords.get("url"), keywords.get("displayed_filename")]
    return [str(each).partition("?")[0] for each in given if isinstance(each, (str, os.PathLike))]

"""The loader generations, recognised by what is present in transformers."""

from __future__ import annotations

import sys


def loader_generation() -> str | None:
    """Returns which of the four loaders the imported transformers has, by what is present.

    Returns:
        ``"A"`` to ``"D"``, or None while ``transformers.modeling_utils`` has
        not been imported.
    """
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None:
        return None
    names = vars(modeling)
    if "convert_and_load_state_dict_in_model" in names:
        return "D"
    if "_load_parameter_into_model" in names:
        return "C"
    if "_get_resolved_checkpoint_files" in names:
        return "B"
    return "A"

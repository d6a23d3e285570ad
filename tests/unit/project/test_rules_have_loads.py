"""Every rule has a real load that triggers it, and one near that does not: the list of both.

A line names tests as ``module::test`` below ``tests``, kinds of ``tests/integration/kinds`` as ``kind NAME``,
and recorded traces by their path. Most kinds have no finding above ``info``, and ``test_kinds.py`` holds that
of each of them, from 4.57 on: ``kind dense`` stands for all where none is nearer.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import catalogue, findings

TESTS = Path(__file__).resolve().parents[2]
KINDS = TESTS / "integration" / "kinds"
RULES = "integration/test_rules_on_loads.py::"
FOUND = "integration/test_findings_of_loads.py::"
FETCHED = "integration/test_hub_fetches.py::test_what_was_fetched_for_nothing"
OF_RANKS = "integration/test_ranks_of_a_job.py::test_copies_and_bytes_read_twice_are_findings"
ACCELERATED = "integration/test_accelerators.py::"
GPU = "tests/data/gpu/llama-7b-"
HEALTHY = "kind dense"

LOADS = {
    "not-supported": ("tests/data/deepspeed/zero3-5.24.0.json.gz", GPU + "cuda-5.24.0.json.gz"),
    "quantise-staging": (RULES + "test_tensors_that_wait_to_be_quantised",) * 2,
    "lost-events": ("integration/test_culprits.py::test_a_journal_that_may_not_grow_says_so", HEALTHY),
    "hook-errors": (
        "patching/test_promises.py::test_a_hook_point_that_cannot_be_looked_at_is_counted",
        "patching/test_promises.py::test_a_hook_point_that_cannot_be_looked_at_is_counted",
    ),
    "slow-sampling": (RULES + "test_a_sampler_that_gets_no_processor",) * 2,
    "missing-hook-points": (
        "integration/test_unrecognised.py::test_a_loader_that_fits_no_generation_is_called_so",
        "integration/test_unrecognised.py::test_the_installed_one_is_known",
    ),
    "sampler-ended": ("unit/api/test_api_recording.py::test_a_sampler_that_was_killed_is_told",) * 2,
    "attached-midway": (
        "integration/test_attach.py::test_a_second_load_that_hangs_is_looked_at_and_no_row_is_of_it",
        "integration/test_attach.py::test_a_service_is_attached_to_twice_and_goes_on",
    ),
    "init-then-overwrite": (RULES + "test_weights_that_are_initialised_for_nothing",) * 2,
    "dtype-widened": (RULES + "test_a_dtype_that_is_wider_than_the_stored_one",) * 2,
    "cast-in-flight": (FOUND + "test_a_cast_that_gains_nothing",) * 2,
    "mmap-on-slow-storage": (
        "integration/test_floor.py::test_pages_that_come_one_by_one_and_pages_that_are_read_ahead",
    )
    * 2,
    "imports-dominate": (
        "integration/test_limiting_stage.py::test_imports",
        RULES + "test_a_program_that_is_slow_by_itself",
    ),
    "many-tiny-tensors": (
        FOUND + "test_very_many_tensors",
        FOUND + "test_a_load_that_goes_on_after_its_last_tensor",
    ),
    "pickle-checkpoint": ("integration/test_entries.py::test_a_pickle_is_unpickled_once", HEALTHY),
    "full-collections": (
        "integration/test_collections.py::test_the_collection_after_every_shard",
        "integration/test_collections.py::test_without_a_full_collection_there_is_no_span",
    ),
    "reserved-unused": ("traces/examples/mixtral-D-5.23.0-gpu.json", GPU + "cuda-5.24.0.json.gz"),
    "quant-not-realised": ("kind fp8_blocks", "kind compressed_w4a16"),
    "not-resident": (RULES + "test_weights_that_are_mapped_and_not_in_memory",) * 2,
    "offloaded-to-disk": (GPU + "offload-5.24.0.json.gz", GPU + "cuda-5.24.0.json.gz"),
    "offloaded-to-cpu": (GPU + "offload-5.24.0.json.gz", GPU + "cuda-5.24.0.json.gz"),
    "left-on-meta": (RULES + "test_parameters_without_data",) * 2,
    "buffers-on-meta": (RULES + "test_buffers_without_data",) * 2,
    "missing-weights": ("kind custom_tensors", HEALTHY),
    "unused-keys": ("kind pickles", "kind experts_merged"),
    "hub-requests": ("integration/test_hub.py::test_first_second_and_offline_load",) * 2,
    "fetched-not-opened": (FETCHED,) * 2,
    "waited-for-downloads": (FETCHED,) * 2,
    "full-copy-per-rank": (OF_RANKS,) * 2,
    "read-amplification": (OF_RANKS,) * 2,
    "loaded-twice": (FOUND + "test_the_same_weights_twice",) * 2,
    "loaded-then-replaced": (FOUND + "test_a_state_dict_that_replaces_what_was_loaded",) * 2,
    "waiting-for-readers": (GPU + "cuda-5.24.0.json.gz", GPU + "cuda-4.57.6.json.gz"),
    "killed-at-limit": (RULES + "test_a_load_that_its_limit_ends", HEALTHY),
    "out-of-memory": ("traces/examples/mixtral-D-5.23.0-gpu-full.json", GPU + "cuda-5.24.0.json.gz"),
    "stalled": (
        "integration/test_postmortem.py::test_a_silent_load_says_what_it_is_doing_and_goes_on",
        "integration/test_postmortem.py::test_nobody_watches_where_nobody_should",
    ),
    "ignored-keyword": ("kind misspelt_keyword", HEALTHY),
    "overwritten-weights": ("kind overwritten", HEALTHY),
    "uninitialized-weights": ("kind custom_tensors", HEALTHY),
    "unknown-weights": ("kind timm_checkpoint", HEALTHY),
    "unread-files": (
        "integration/test_files_as_they_were.py::test_a_file_that_changed_while_its_load_ran_is_no_source_of_claims",
        HEALTHY,
    ),
    "tied-over-own-key": ("kind tied_own_key", "kind tied_same_key"),
    "tied-by-copy": ("kind tied_by_copy", "kind resized_tied"),
    "mismatched-shapes": ("kind mismatched_head", "kind resized"),
    "asked-not-got": ("kind dtypes_of_parts", HEALTHY),
    "one-prefix": ("kind compiled_prefix", HEALTHY),
    "overlapping-loads": (RULES + "test_two_loads_at_once",) * 2,
    "failed-requests": (
        "integration/test_hub.py::test_an_answer_of_503_that_passes_costs_requests_and_nothing_else",
        HEALTHY,
    ),
    "offline-too-late": ("integration/test_hub.py::test_offline_mode_that_came_too_late", HEALTHY),
    "unused-weight-files": ("kind old_file_beside_shards", "kind chunked"),
    "foreign-code": ("kind same_leaf_name", "kind remote_code"),
    "verify-failed": ("kind changed_after_loading", HEALTHY),
    "outside-dominates": (RULES + "test_a_program_that_is_slow_by_itself",) * 2,
    "slow-resize": (
        "integration/test_session.py::test_a_change_that_costs_more_than_the_load_is_the_finding",
        HEALTHY,
    ),
    "cast-after-load": (
        "integration/test_several_loads.py::test_a_cast_after_the_load_is_the_programs",
        "integration/test_several_loads.py::test_one_checkpoint_in_two_dtypes_is_no_cast",
    ),
    "initialized-after-load": ("kind initialized_after", "kind cast_after"),
    "written-after-load": (
        "integration/test_several_loads.py::test_weights_that_are_gone_after_the_load_are_a_finding",
        "kind cast_after",
    ),
    "not-finite": ("integration/test_statistics_of_loads.py::test_a_new_head_of_no_numbers_is_a_finding",)
    * 2,
    "constant-values": ("integration/test_statistics_of_loads.py::test_a_new_head_of_one_value_is_a_finding",)
    * 2,
    "damaged-files": (
        "integration/test_culprits.py::test_a_shard_that_is_not_whole",
        "integration/test_culprits.py::test_what_was_loaded_well_is_never_called_damaged",
    ),
    "not-there": (
        "integration/test_culprits.py::test_a_folder_and_a_variant_that_are_not_there",
        "integration/test_entries.py::test_a_folder_that_is_there_is_not_said_to_be_missing",
    ),
    "merged-parts-kept": (RULES + "test_experts_whose_parts_malloc_keeps",) * 2,
    "killed-while-merging": (RULES + "test_experts_whose_parts_malloc_keeps",) * 2,
    "unpinned-code": (
        "integration/test_own_code.py::test_code_from_the_hub_is_told_with_its_commit_and_whether_it_was_pinned",
    )
    * 2,
    "uncalled-hooks": (
        "integration/test_own_code.py::test_hooks_of_load_state_dict_that_were_not_called",
        "integration/test_own_code.py::test_a_hook_of_torch_itself_is_nobodys_finding",
    ),
    "unneeded-imports": (
        "integration/test_import_switches.py::test_the_line_of_a_program",
        "integration/test_limiting_stage.py::test_imports",
    ),
    "no-bytecode": (RULES + "test_modules_that_are_compiled_each_time",) * 2,
    "at-the-limit": ("integration/test_limiting_stage.py::test_storage_that_gives_what_it_can",) * 2,
    "moved-after-load": (ACCELERATED + "test_rows_and_devices_are_what_torch_says",) * 2,
    "several-devices": (ACCELERATED + "test_rows_and_devices_are_what_torch_says",) * 2,
    "warm-up-overshoot": (ACCELERATED + "test_a_warm_up_for_weights_that_are_tied",) * 2,
    "double-residency": (ACCELERATED + "test_a_device_whose_memory_is_the_hosts",) * 2,
    "conversion-spike": (RULES + "test_parts_in_a_file_that_was_read_whole",) * 2,
    "silent-tail": (
        FOUND + "test_a_load_that_goes_on_after_its_last_tensor",
        FOUND + "test_a_load_that_is_slow_before_its_first_tensor",
    ),
}
"""By the name of a finding: a load that triggers it, and one near that does not."""

NO_LOAD: dict[str, str] = {}
"""Those without one, and why: handmade traces alone hold them."""


@cache
def _functions(path: Path) -> dict[str, str]:
    text = path.read_text()
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_rule_is_in_one_list():
    names = {kind.name for kind in catalogue() if kind.id != "R21"}
    assert set(LOADS) | set(NO_LOAD) == names
    assert not set(LOADS) & set(NO_LOAD)


@pytest.mark.parametrize("name", LOADS)
def test_the_loads_are_there(name):
    """Tests and kinds that have been renamed, or hold another finding now, are noticed."""
    rule = next(kind.id for kind in catalogue() if kind.name == name)
    for triggers, place in zip((True, False), LOADS[name], strict=True):
        if place.startswith("kind "):
            text = (KINDS / f"{place.removeprefix('kind ')}.py").read_text()
            if triggers:
                assert f'"{name}"' in text
            else:
                said = re.findall(r"^(?:FINDINGS|WARNED) = .*", text, re.M)
                assert f'"{name}"' not in " ".join(said)
        elif "::" in place:
            module, _, test = place.partition("::")
            functions = _functions(TESTS / module)
            assert test in functions, place
            if triggers:
                # In the test, or in what its module makes for it.
                text = (TESTS / module).read_text()
                assert f'"{name}"' in text or f'"{rule}"' in text, place
        else:
            found = {each.name for each in findings(hftrace.Trace.open(TESTS.parent / place))}
            assert (name in found) == triggers

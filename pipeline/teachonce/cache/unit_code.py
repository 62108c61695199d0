"""The code that decides a unit's bytes, as one digest: part of a unit's name.

A module that is left out by mistake lets units of other code pass for today's; one that is needless in it costs all
finished units with each release that changes it.
"""

from pathlib import Path

from teachonce.core import import_closure

COMPUTES = "teachonce/cache/unit_worker.py"
"""File of the module that computes a unit, relative to the source root; its import closure is digested."""

_READERS = "reads stores, which are made of units"
EXEMPT = {
    "teachonce/core/config.py": "reads settings and records; those that decide a byte are in the name by value",
    "teachonce/core/device_memory.py": "words a refusal",
    "teachonce/core/disk_errors.py": "words refusals",
    "teachonce/core/errors.py": "words refusals",
    "teachonce/core/remote_files.py": "fetches files, whose sha256 is compared",
    "teachonce/core/files.py": "puts bytes on a disk, where their sha256 is compared",
    "teachonce/core/locks.py": "waits for other processes",
    "teachonce/core/allocator.py": "tells the allocator what to keep",
    "teachonce/core/storage.py": "fetches files, whose sha256 is compared",
    "teachonce/core/yaml_reader.py": "reads settings; those that decide a byte are in the name by value",
    "teachonce/core/validation_messages.py": "words refusals",
    "teachonce/core/progress.py": "draws progress bars",
    "teachonce/core/run_record.py": "names versions, which are compared by value",
    "teachonce/core/seeding.py": "begins a training; the weights it ends with are in the name by their sha256",
    "teachonce/core/sealed_files.py": "compares files with their digests",
    "teachonce/core/spelling.py": "words refusals",
    "teachonce/core/terminal.py": "shows text",
    "teachonce/core/waiting.py": "says what is waited for",
    "teachonce/store/acceptance.py": _READERS,
    "teachonce/store/store_metadata.py": _READERS,
    "teachonce/store/store_reader.py": _READERS,
    "teachonce/store/unit_records.py": _READERS,
    "teachonce/store/verified_objects.py": _READERS,
    "teachonce/shards/decode_limits.py": "refuses images that cost too much, and changes none",
    "teachonce/shards/decoder_messages.py": "silences decoders, and changes no pixel",
    "teachonce/shards/sample_keys.py": "judges and shows names, and changes none",
    "teachonce/teacher/teacher_config.py": "declares settings; those that decide a byte are in the name by value",
    "teachonce/views/kernel_choice.py": "chooses who computes the integers of the kernels",
    "teachonce/views/kernel_compiler.py": "compiles the kernels, whose integers are the same whoever computes them",
    "teachonce/views/kernels_numpy.py": "computes the integers of the kernels, as a test proves",
    "teachonce/cache/render_processes.py": "runs `rendered_batches.render_group` elsewhere",
    "teachonce/cache/renderer_choice.py": "chooses who renders; `rendered_batches.render_group` makes the pixels",
}
"""Modules that decide no byte of a unit, each with the reason.

Not here, since computing a unit does not import them: the teacher's training, the executors.
"""


def closure_digest(root: Path = import_closure.ROOT) -> str:
    """BLAKE2b-128 of the statements that decide a unit's bytes, as 32 hex digits.

    Args:
        root: folder of the package `teachonce`.
    """
    # Found by imports, not by a list of modules: a new module that decides a byte is in it from its first import on.
    return import_closure.code_digest(COMPUTES, frozenset(EXEMPT), root)

"""The name of a run's folder: it changes with anything that changes the weights, and with nothing else.

Under a name that stayed, a run would go on from the checkpoint of another; under one that changed with every comment or
count of loader processes, a run that was killed would begin anew.
"""

from teachonce.core import hashing, import_closure
from teachonce.student import row_source, student_record, student_spec, train_config

_CHANGE_NOTHING = frozenset({"max_tv", "start"})
"""Keys of an entry: one only warns; the other's weights are in the name by their digest."""
EXEMPT = {
    "teachonce/core/import_closure.py": "digests code",
    "teachonce/core/device_memory.py": "words a refusal",
    "teachonce/core/errors.py": "words refusals",
    "teachonce/core/remote_files.py": "fetches files, whose sha256 is compared",
    "teachonce/core/files.py": "puts bytes on a disk",
    "teachonce/core/locks.py": "waits for other processes",
    "teachonce/core/outputs.py": "puts folders in their places",
    "teachonce/core/storage.py": "fetches files, whose sha256 is compared",
    "teachonce/core/yaml_reader.py": "reads settings, which are compared by value",
    "teachonce/core/validation_messages.py": "words refusals",
    "teachonce/core/progress.py": "draws progress bars",
    "teachonce/core/run_record.py": "names versions, and what a stage cost",
    "teachonce/core/sealed_files.py": "compares files with their digests",
    "teachonce/core/spelling.py": "words refusals",
    "teachonce/core/terminal.py": "shows text",
    "teachonce/core/waiting.py": "says what is waited for",
    "teachonce/shards/decode_limits.py": "refuses images that cost too much, and changes none",
    "teachonce/shards/decoder_messages.py": "silences decoders, and changes no pixel",
    "teachonce/shards/sample_keys.py": "judges and shows names, and changes none",
    "teachonce/views/kernel_choice.py": "chooses who computes the integers of the kernels",
    "teachonce/views/kernel_compiler.py": "compiles the kernels, whose integers are the same whoever computes them",
    "teachonce/views/kernels_numpy.py": "computes the integers of the kernels, as a test proves",
}
"""Modules that change no weight, each with the reason."""


def folder_name(
    student: student_spec.Student,
    source: row_source.RowSource,
    start: student_record.StartRecord | None,
    module: str,
) -> str:
    """Digest of configuration, code, rows and images: 32 hex digits.

    But for rounding: the count of ranks is not among it, so that others can go on.

    Args:
        student: its entry and its training.
        source: samples and rows.
        start: the record of the weights that it begins with; None where they are drawn.
        module: file whose import closure trains, relative to the source root.
    """
    # With the keys of every kind, each as it stands in a record: a name must not hang on how the forms are divided.
    entry = student_spec.all_keys(student.spec)
    return hashing.json_digest(
        {
            "settings": student.config.model_dump(mode="json", exclude=set(train_config.OPERATIONAL)),
            "student": {key: value for key, value in entry.items() if key not in _CHANGE_NOTHING},
            "aug_seeds": source.aug_seeds,
            # Of all code that can change a weight: after a change there, an old checkpoint is half of another run.
            "code": import_closure.code_digest(module, frozenset(EXEMPT)),
            "shards": [shard.sha256 for shard in source.shards.index.of_split("train")],
            "start": start.model_dump(mode="json") if start else None,
            **source.identity,
        }
    )

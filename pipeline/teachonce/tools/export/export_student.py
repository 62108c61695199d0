"""Hand over a student: a folder that timm, a hub and ONNX Runtime read, with a card that says what it is."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, files, outputs, progress
from teachonce.evaluate import validation_batches
from teachonce.shards import index
from teachonce.store import compatibility, store_reader
from teachonce.student import student_model, student_record, student_spec
from teachonce.tools.export import export_source, hub_config, model_card, onnx_graph

IMAGES = 32
"""Validation images that the graph is checked on."""
_KIND = outputs.FolderKind(
    "an earlier export",
    model_card.NAME,
    b"teachonce",
    re.compile("|".join(map(re.escape, (student_model.EMA, hub_config.NAME, onnx_graph.NAME)))),
)


@dataclass(frozen=True, slots=True)
class ExportPaths:
    """What an export reads, and where it writes."""

    weights: Path
    """Folder of the student: weights and record."""
    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the validation split, or its URL."""
    metrics: Path
    """JSON of the student's evaluation."""
    out: Path
    """Folder that receives the export."""


def export(name: str, paths: ExportPaths) -> onnx_graph.ExportCheck:
    """Write the folder, whole or not at all.

    Args:
        name: of the student, the title of its card.
        paths: what is read, and the folder that is written.

    Raises:
        ConfigError: a library is missing, or the name or the folder to write is refused.
        DataError: record, weights and metrics are not those of one student.
        IdentityError: shards, store and student do not belong together.
        NumericsError: the graph does not answer as torch does.
    """
    # First what needs no reading: a missing library must not show after minutes of hashing.
    onnx_graph.require_libraries()
    _require_named(name)
    out = outputs.Output(paths.out, _KIND, (paths.weights, paths.shards, paths.cache, paths.metrics))
    out.require_replaceable()
    export_source.require_folder(paths.weights)
    trained = student_record.read(paths.weights)
    record = trained.record
    shards, cache = index.read(paths.shards), store_reader.open(paths.cache)
    export_source.require_teacher(cache, record)
    accept = record.student.accept
    # Against its own policy: an export wants no views in particular, but classes, tars and keys that belong together.
    compatibility.require_compatible(
        cache, shards, validation_batches.SPLIT, compatibility.Requirements(cache.recipe.policy, 1), accept
    )
    cached_shards = compatibility.restrict_to_cached(cache, shards, validation_batches.SPLIT)
    evaluation = export_source.read_evaluation(
        paths.metrics, record, cached_shards.index.nsamples(validation_batches.SPLIT)
    )
    images = export_source.checked_images(
        validation_batches.EvaluationData(cached_shards, cache, record.recipe.size, accept)
    )
    classes = cache.recipe.teacher.num_classes
    network = student_model.load(trained.weights, record.named(name), classes, folder=paths.weights)
    with out.draft() as draft, progress.bar(range(2), label="export: graph", total=2, unit="step") as bar:
        # The bytes that were verified, not a link to the file or a second reading of it: the file may change meanwhile,
        # and whoever gets the folder may edit it.
        files.write_bytes(draft / student_model.EMA, trained.weights)
        files.write_json(
            draft / hub_config.NAME, hub_config.timm_config(record, network, shards.index.classes, cache.recipe.policy)
        )
        onnx_graph.write_model(draft / onnx_graph.NAME, network, record.recipe, cache.recipe.policy)
        bar.set_description_str("export: compared with torch")
        bar.update()
        check = onnx_graph.compare_with_torch(
            draft / onnx_graph.NAME, network, record.recipe, itertools.islice(images, IMAGES)
        )
        bar.update()
        content = model_card.CardData(
            name=name,
            record=record,
            evaluation=evaluation,
            shards=shards.index,
            views=cache.recipe.policy,
            images=check.images,
            difference=check.difference,
        )
        files.write_bytes(draft / model_card.NAME, model_card.to_markdown(content).encode())
    return check


def _require_named(name: str) -> None:
    if not student_spec.NAME.fullmatch(name):
        raise errors.ConfigError.for_value(
            "export", "student", "named with letters, digits, _ and -", name, "Rename it"
        )

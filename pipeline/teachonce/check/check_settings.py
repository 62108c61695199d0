"""All that can be known before anything runs: of the configurations, and of the shards where they are there."""

from pathlib import Path

from teachonce.check import image_counts, network_trial, project_configs, required_files, setting_clashes
from teachonce.check.check_findings import Findings
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core.project_params import ConfigChoices
from teachonce.prepare import dataset_config


def collect_findings(
    chosen: ConfigChoices, places: required_files.ArtifactPaths, memory: Path, *, counted: bool = False
) -> Findings:
    """Read everything that params.yaml names, whole and against each other.

    Args:
        chosen: params.yaml and the folder of the files that it names.
        places: of results.
        memory: folder of what was in order before and takes seconds to try.
        counted: whether the shards are made, so that all is asked that needs to know how many images there are.
    """
    findings = Findings()
    choice = project_configs.read(chosen, findings)
    images = image_counts.read(places.shards) if counted else None
    num_classes = images.num_classes if images else _num_classes(choice)
    findings.add(setting_clashes.cross_check(choice, num_classes))
    if images and choice.cache:
        findings.add(image_counts.cache_problems(choice.cache, images, choice.path("cache")))
    if images is None:
        required_files.check_resources(choice, places, findings)
        network_trial.try_networks(choice, memory, findings)
    # What does not fit together has no size.
    elif not findings.problems:
        findings.gather(lambda: _room(choice, images, places))
    return findings


def _num_classes(choice: LoadedConfigs) -> int | None:
    return dataset_config.num_classes(choice.dataset) if choice.dataset else None


def _room(choice: LoadedConfigs, images: image_counts.DatasetCounts, places: required_files.ArtifactPaths) -> None:
    if choice.teacher is None or choice.views is None or choice.cache is None:
        return
    from teachonce.check import row_size  # noqa: PLC0415 - imports zarr, which takes half a second

    row = row_size.placeholder_recipe(choice.teacher, choice.views.policy, choice.cache, images.num_classes)
    row_size.require_block_limits(row, choice.cache, images.rows_per_tar, choice.path("cache"))
    views = images.train * choice.views.aug_seeds + images.val
    if not places.lock.is_settled("cache"):
        required_files.require_disk_space(row_size.least_bytes(row, views), places.scratch, choice.path("views"))

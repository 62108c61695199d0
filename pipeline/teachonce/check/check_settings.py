"""All checks that are possible before anything runs: of configurations, and of the shards where they exist already."""

from pathlib import Path

from teachonce.check import (
    image_counts,
    network_trial,
    project_configs,
    required_files,
    setting_clashes,
    weights_trial,
)
from teachonce.check.check_findings import Findings
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core.project_params import ConfigChoices
from teachonce.prepare import dataset_config


def collect_findings(
    choices: ConfigChoices, paths: required_files.ArtifactPaths, trials_folder: Path, *, counted: bool = False
) -> Findings:
    """Read everything that params.yaml names, whole and against each other.

    Args:
        choices: params.yaml and the folder of the files that it names.
        paths: of the stages' results.
        trials_folder: remembers networks that were tried and in order, which takes seconds each.
        counted: whether the shards are made, so that what hangs on the number of images can be checked.
    """
    findings = Findings()
    configs = project_configs.read(choices, findings)
    counts = image_counts.read(paths.shards) if counted else None
    num_classes = counts.num_classes if counts else _num_classes(configs)
    findings.add(setting_clashes.cross_check(configs, num_classes))
    if counts and configs.cache:
        findings.add(image_counts.cache_problems(configs.cache, counts, configs.path("cache")))
    # Only in the first check, before shards are there: the second one would look at the same files and networks again.
    if counts is None:
        required_files.check_resources(configs, paths, findings)
        network_trial.try_networks(configs, trials_folder, findings)
    # Settings that clash do not say what a row is, and so not what rows take.
    elif not findings.problems:
        findings.gather(lambda: _require_room(configs, counts, paths))
    # Again where the classes are counted: weights that are not fine-tuned must be of as many.
    if configs.teacher is not None and not findings.names(configs.path("teacher")):
        # Where the teacher need not be made again, what is wrong with its weights is a warning.
        target = Findings(findings.warnings) if paths.lock.is_settled("teacher") else findings
        target.gather(lambda: weights_trial.try_weights(configs, num_classes, trials_folder))
    return findings


def _num_classes(configs: LoadedConfigs) -> int | None:
    return dataset_config.num_classes(configs.dataset) if configs.dataset else None


def _require_room(
    configs: LoadedConfigs, counts: image_counts.DatasetCounts, paths: required_files.ArtifactPaths
) -> None:
    if configs.teacher is None or configs.views is None or configs.cache is None:
        return
    from teachonce.check import row_size  # noqa: PLC0415 - imports zarr, which takes half a second

    recipe = row_size.placeholder_recipe(configs.teacher, configs.views.policy, configs.cache, counts.num_classes)
    row_size.require_block_limits(recipe, configs.cache, counts.rows_per_tar, configs.path("cache"))
    views = counts.train * configs.views.aug_seeds + counts.val
    if not paths.lock.is_settled("cache"):
        required_files.require_disk_space(row_size.least_bytes(recipe, views), paths.scratch, configs.path("views"))

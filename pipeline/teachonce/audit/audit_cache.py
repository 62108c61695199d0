"""Audit a received cache: all that can be checked without the teacher, and some of its rows with the teacher."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from teachonce.audit import agreement_figure, audit_finding, store_audit, teacher_replay, view_sample
from teachonce.core import errors, outputs, progress, storage, terminal
from teachonce.format import row_frontier
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, replay, store_reader

FIGURE = "differences.svg"
_KIND = outputs.FolderKind("an earlier audit", FIGURE, b"stored against live", re.compile(""))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AuditPaths:
    """The folders that an audit reads."""

    cache: str | Path
    """Folder of the stores, one a split, or its URL."""
    shards: str | Path
    """Folder of shards, or its URL."""
    teacher: Path | None = None
    """The teacher's folder; None audits without it."""


@dataclass(slots=True)
class Audit:
    """The outcome of an audit, collected while it runs."""

    findings: list[audit_finding.Finding] = field(default_factory=list)
    """All that is wrong, in the order in which it was met."""
    facts: dict[str, dict[str, object]] = field(default_factory=dict)
    """Counts and differences by split, for the report."""
    measured: dict[str, teacher_replay.LogitDifferences] = field(default_factory=dict)
    """Differences from the teacher's logits by split; empty without a teacher."""

    def report(self) -> dict[str, object]:
        """Plain data for the JSON report."""
        listed = [finding.model_dump(mode="json") for finding in self.findings]
        return {"findings": listed, "count": len(listed), "stores": self.facts}

    def text(self) -> str:
        """A summary for a person: a line for each finding and each store."""
        lines = [terminal.printable(f"{finding.file}: {finding.what}. {finding.cure}") for finding in self.findings]
        for split, facts in self.facts.items():
            counted = ", ".join(f"{count:,} {name}" for name, count in facts.items() if isinstance(count, int))
            lines.append(f"{split}: {counted}")
        for split, differences in self.measured.items():
            stored_nats, control_nats = differences.stored_B.max(), differences.control_B.max()
            lines.append(
                f"{split}: {len(differences.stored_B)} rows asked again: stored against live at most {stored_nats:.2g} "
                f"nats, live against live {control_nats:.2g}, tolerance {differences.tolerance:.2g}"
            )
        return "\n".join([*lines, f"{len(self.findings)} findings" if self.findings else "no findings"])


def audit(paths: AuditPaths, *, out: Path, rows: int, seed: int) -> Audit:
    """Check both stores against their shards and, where given, the teacher; all findings are collected.

    Args:
        paths: the folders to read.
        out: folder of the figure.
        rows: views of each store for which the teacher is run again.
        seed: of their choice.

    Raises:
        DataError: the shards have no readable index.
    """
    output = outputs.Output(out, _KIND, (paths.cache, paths.shards, paths.teacher))
    output.require_replaceable()
    shards = index.read(paths.shards)
    outcome = Audit()
    splits = [split for split in index.SPLITS if shards.index.of_split(split)]
    outcome.findings += _find_stray_entries(paths.cache, {f"{split}.zarr" for split in splits})
    for split in splits:
        _StoreAudit(outcome, shards, split).audit(paths, rows, seed)
    with output.draft() as draft:
        if outcome.measured:
            agreement_figure.plot_differences(draft / FIGURE, outcome.measured)
    return outcome


def _find_stray_entries(cache: str | Path, stores: Collection[str]) -> Iterator[audit_finding.Finding]:
    """Findings about what lies beside the stores and is neither one of them nor a measurement of the frontier."""
    folder = storage.open_folder(cache, errors.CacheError)
    for name in sorted(folder.entries() - {*stores, row_frontier.NAME}):
        yield audit_finding.Finding(file=f"{folder}/{name}", what="is no store of these shards", cure="Remove it")
    try:
        row_frontier.read(cache)
    except errors.CacheError as error:
        yield audit_finding.from_error(error)


class _StoreAudit:
    """The audit of one store with its tars; what is wrong goes into the findings of the whole."""

    def __init__(self, outcome: Audit, shards: index.Shards, split: str) -> None:
        self._audit = outcome
        self._findings = outcome.findings
        self._shards = shards
        self._split = split
        self._entries = shards.index.of_split(split)
        self._canaries = 0

    def audit(self, paths: AuditPaths, rows: int, seed: int) -> None:
        """Check rows first, then tars, then rows against the teacher: each tar is read once for all of it."""
        path = storage.subfolder(paths.cache, f"{self._split}.zarr")
        facts: dict[str, object] = {"tars": len(self._entries), "samples": self._shards.index.nsamples(self._split)}
        try:
            cache = store_reader.open(path, incomplete=True)
        except errors.CacheError as error:
            # A store that cannot be opened does not spare the shards their check: one run lists all there is.
            self._findings.append(audit_finding.from_error(error, path))
            for entry in self._bar(self._entries, "tars"):
                self._check_tar(entry, None, [])
        else:
            sound = self._check_rows(cache)
            # Rows are compared only where their objects are sound: a damaged object is one finding, not one for each
            # row.
            teacher = self._load_teacher(paths.teacher, cache) if paths.teacher else None
            chosen = view_sample.choose_by_hash(cache, rows, seed) if teacher else {}
            views = self._check_tars(cache, {tar: views for tar, views in chosen.items() if tar in sound})
            facts |= {"units": len(list(cache.units())), "bytes": cache.stored_bytes(), "canaries": self._canaries}
            if teacher and views:
                measured, problems = teacher_replay.compare_rows(cache, views, teacher)
                self._findings += problems
                self._audit.measured[self._split] = measured
                facts["teacher"] = measured.facts()
        self._audit.facts[self._split] = facts

    def _check_rows(self, cache: store_reader.Cache) -> set[int]:
        """Check what the store says by itself; the positions of the tars whose objects are sound."""
        self._findings += [*store_audit.find_stray_files(cache), *store_audit.check_unit_totals(cache)]
        self._findings += map(
            audit_finding.from_error, compatibility.find_differences(cache, self._shards, self._split)
        )
        sound = set()
        for position in self._bar(range(len(cache.extent.tars)), "rows"):
            problems = list(store_audit.check_tar(cache, position))
            self._findings += problems
            if not problems:
                sound.add(position)
        return sound

    def _check_tars(
        self, cache: store_reader.Cache, chosen: dict[int, list[view_sample.SampledView]]
    ) -> list[view_sample.SampledView]:
        """Check all tars; the chosen views with their pixels."""
        cached_positions = {tar.sha256: position for position, tar in enumerate(cache.extent.tars)}
        # By sha256, not by URL or position: those differ in another team's copy of the same shards.
        for sha256 in cached_positions.keys() - {entry.sha256 for entry in self._entries}:
            tar = cache.extent.tars[cached_positions[sha256]]
            what = f"canaries of {tar.url} cannot be replayed: no tar of sha256 {sha256} among the shards"
            cure = "Audit with the shards it was made of"
            self._findings.append(audit_finding.Finding(file=str(cache.path), what=what, cure=cure))
        views: list[view_sample.SampledView] = []
        # Views of another renderer are one finding, not one for each tar.
        is_renderable = not list(compatibility.renderer_differences(cache))
        for entry in self._bar(self._entries, "tars"):
            is_cached = entry.sha256 in cached_positions and is_renderable
            views += self._check_tar(
                entry, cache if is_cached else None, chosen.get(cached_positions[entry.sha256], []) if is_cached else []
            )
        return views

    def _check_tar(
        self, entry: index.Shard, cache: store_reader.Cache | None, chosen: list[view_sample.SampledView]
    ) -> list[view_sample.SampledView]:
        """Verify a tar and replay its canaries."""
        path = self._shards.base / entry.url
        views: list[view_sample.SampledView] = []
        drifts: list[compatibility.CanaryDrift | None] = []
        try:
            with sample_reader.open_tar(entry, self._shards.path(entry)) as samples:
                if cache is None:
                    return []
                tar = cache.tar(entry.sha256)
                drifts = compatibility.replay_canaries(cache, samples, tar, compatibility.seed_groups(cache))
                extent_tar = cache.extent.tars[tar]
                views = [
                    replace(view, pixels=replay.render_view(cache.recipe, extent_tar, samples, view.row, view.aug_seed))
                    for view in chosen
                ]
        except errors.TeachonceError as error:
            self._findings.append(audit_finding.from_error(error, path))
            return []
        self._canaries += len(drifts)
        drifted = [drift for drift in drifts if drift]
        if drifted:
            drift = compatibility.drift_error(cache, drifted, len(drifts))
            self._findings.append(audit_finding.from_error(drift, path))
        return views

    def _load_teacher(self, folder: Path, cache: store_reader.Cache) -> teacher_replay.LogitsModel | None:
        """The teacher where it is the recipe's, else None: logits of another one would say nothing of this cache."""
        try:
            differences = list(teacher_replay.compare_identity(folder, cache))
            self._findings += differences
            return None if differences else teacher_replay.load_teacher(folder, cache.recipe)
        except errors.ConfigError as error:
            self._findings.append(audit_finding.from_error(error))
            return None

    def _bar(self, items: Sequence[T], what: str) -> Iterable[T]:
        return progress.bar(items, label=f"audit: {self._split} {what}", total=len(items), unit="tar")

"""Stored against live beside live against live, as one SVG file."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from teachonce.audit import teacher_replay

_LEAST = 1e-8
"""Stands for a difference of 0 on the logarithmic axis."""


def plot_differences(path: Path, measured: Mapping[str, teacher_replay.LogitDifferences]) -> None:
    """Share of views by their largest difference, a panel a store."""
    with mpl.rc_context({"svg.hashsalt": "audit", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2 * len(measured), 3.4), layout="constrained")
        for axes, (split, found) in zip(
            figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True
        ):
            for part_B, label, dash in (
                (found.control_B, "live against live, other batches", "--"),
                (found.stored_B, "stored against live", "-"),
            ):
                share = np.arange(1, len(part_B) + 1) / len(part_B)
                axes.step(np.sort(np.maximum(part_B, _LEAST)), share, dash, where="post", label=label)
            axes.axvline(found.tolerance, color="black", ls=":", lw=1, label="tolerance")
            axes.set_xscale("log")
            axes.set_xlim(left=_LEAST / 2)
            axes.set_xlabel("largest difference of a view in nats")
            axes.set_ylabel("share of views at most this far")
            axes.set_title(f"{split}: {len(found.stored_B)} views", fontsize=10)
            axes.legend(fontsize=8)
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))

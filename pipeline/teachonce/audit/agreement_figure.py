"""How far stored rows are from live ones, beside how far live ones are from each other: one SVG file."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from teachonce.audit import teacher_replay

_LEAST_NATS = 1e-8
"""Stands for a difference of 0 on the logarithmic axis."""


def plot_differences(path: Path, measured: Mapping[str, teacher_replay.LogitDifferences]) -> None:
    """Draw the share of views by their largest difference in nats, a panel for each store.

    By how much two live answers of one view differ is drawn too: stored rows need not be nearer than that.
    """
    # A fixed salt and no date: equal measurements give equal bytes, and DVC sees no change where there is none.
    with mpl.rc_context({"svg.hashsalt": "audit", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2 * len(measured), 3.4), layout="constrained")
        for axes, (split, differences) in zip(
            figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True
        ):
            for nats_B, label, dash in (
                (differences.control_B, "live against live, other batches", "--"),
                (differences.stored_B, "stored against live", "-"),
            ):
                share = np.arange(1, len(nats_B) + 1) / len(nats_B)
                axes.step(np.sort(np.maximum(nats_B, _LEAST_NATS)), share, dash, where="post", label=label)
            axes.axvline(differences.tolerance, color="black", ls=":", lw=1, label="tolerance")
            axes.set_xscale("log")
            axes.set_xlim(left=_LEAST_NATS / 2)
            axes.set_xlabel("largest difference of a view in nats")
            axes.set_ylabel("share of views at most this far")
            axes.set_title(f"{split}: {len(differences.stored_B)} views", fontsize=10)
            axes.legend(fontsize=8)
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))

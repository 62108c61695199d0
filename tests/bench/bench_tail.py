"""Bytes of a row on disk and what it loses, by k and tail, beside TinyViT's: real logits of real photographs.

    python tests/bench/bench_tail.py [--photos FOLDER/usr/share …] [--figure tests/bench/figures/tail.svg]

Targets: at most 0.7 of TinyViT's bytes at equal k without a tail; with a tail at most 0.2 of its 404 bytes at k = 100,
nearer to the teacher than it at tau 2, 3, 5 and 10; a row nearer at tau 1 too for at most 0.5 of its bytes.

TinyViT keeps the k likeliest classes of the softmax at tau 1, float16 and int16, and a seed of 4 bytes: 4k + 4. Its
reader spreads the left-over mass evenly and knows no other tau; here that is read as well as it can be at tau:
softmax(log p / tau).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
import photographs
import photos

from teachonce.cache import basis_fit, frontier_measurement, store_writer
from teachonce.core import hashing, run_record
from teachonce.format import codec, fidelity, fidelity_measurement, layout, row_expansion, row_frontier, schema
from teachonce.store import store_reader

ROOT = Path(__file__).parents[2]
KS = (5, 10, 20, 50, 100)
FORMS = (
    *(row_frontier.RowFormat(k=k) for k in KS),
    *(
        row_frontier.RowFormat(k=k, rank=rank, step=step)
        for k, rank, step in (
            (5, 128, 3.0),
            (10, 128, 4.0),
            (10, 128, 3.0),
            (10, 128, 2.0),
            (5, 256, 3.0),
            (10, 256, 3.0),
            (10, 256, 2.0),
            (20, 256, 3.0),
            (20, 256, 2.0),
            (20, 512, 2.0),
            (50, 256, 2.0),
            (100, 256, 2.0),
        )
    ),
)
ROW = ("class_id", "logp", "lse", "tail")


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    size: float
    tv: tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, action="append", help="/usr/share, or where else the packages lie")
    parser.add_argument("--figure", type=Path, help="write the figure here")
    parser.add_argument("--scratch", type=Path, default=ROOT / ".teachonce/bench", help="keeps the logits")
    args = parser.parse_args()
    pictures = photographs.paths(args.photos or [Path("/usr/share")])
    if not pictures:
        print(photographs.MISSING)
        return
    logits = photographs.logits(pictures, args.scratch)
    wide = basis_fit.principal_components(logits.fit_NC, max(form.rank or 0 for form in FORMS))
    tiny = {k: tinyvit(logits.measured_NC, k) for k in KS}
    ours, beside = {}, {}
    with tempfile.TemporaryDirectory() as name:
        for form in FORMS:
            line, beside = stored(Path(name) / hashing.json_digest(form.model_dump()), form, logits, wide)
            ours[form] = line
    print(markdown([*tiny.values(), renormalised(logits.measured_NC, 10), *ours.values()]))
    print(f"\nbeside the rows, bytes: {', '.join(f'{name} {size:,}' for name, size in beside.items())}")
    print("\n".join(shared(beside)))
    print("\n".join(verdict(tiny, ours)))
    began_s = time.process_time()
    bench = frontier_measurement.Holdout(
        logits.measured_NC,
        basis_fit.principal_components(logits.fit_NC, max(frontier_measurement.RANKS)),
        recipe_of(logits, FORMS[0], None),
        1000,
    )
    points = frontier_measurement.evaluate_grid(bench, FORMS[0], views_fitted=len(logits.fit_NC))
    print(f"the grid of the cache stage, {len(points.points)} forms: {time.process_time() - began_s:.1f} s of one core")
    if args.figure:
        draw(points, list(tiny.values()), args.figure)


def recipe_of(logits: photographs.Logits, form: row_frontier.RowFormat, basis) -> schema.Recipe:
    tail = "flat"
    if form.rank:
        tail = schema.TransformTail(rank=form.rank, step=form.step, basis_sha256=basis.sha256(form.step))
    return schema.Recipe(teacher=logits.teacher, policy=photos.views().policy, k=form.k, tail=tail)


def stored(folder: Path, form: row_frontier.RowFormat, logits: photographs.Logits, wide) -> tuple[Line, dict[str, int]]:
    """Write a real store of one tar of 1,000 rows under one seed, read it back, count and measure."""
    views = logits.measured_NC
    basis = type(wide)(wide.mean_C, wide.scale_C, wide.components_RC[: form.rank]) if form.rank else None
    recipe = recipe_of(logits, form, basis)
    tar = schema.Tar(url="0.tar", nsamples=len(views), sha256="0" * 64, keys_crc32=hashing.keys_crc32(logits.keys))
    extent = schema.Extent(tars=(tar,), aug_seeds=1, seeds_per_unit=1, rows_per_tar=len(views))
    rows = codec.pack(views, form.k, codec.TailCoding(basis, form.step) if basis else None)
    lost = fidelity_measurement.measure_rows(views, rows, row_expansion.tail_decoder(recipe, basis))
    unit = schema.UnitRecord(
        tar=0,
        group=0,
        correct=0,
        views=len(views),
        objects={},
        fidelity=lost,
        versions=run_record.library_versions(),
        canary=schema.Canary(row=0, aug_seed=0, sha256=hashing.sha256(logits.canary.tobytes())),
        device="cpu",
    )
    answers = store_writer.UnitRows([rows], logits.keys, logits.canary)
    record = store_writer.write_unit(folder / "unit", recipe, extent, answers, unit)
    store_writer.assemble(folder / "train.zarr", recipe, extent, [(folder / "unit", record)], basis)
    cache = store_reader.open(folder / "train.zarr")
    sizes = {
        name: (cache.path / layout.object_path(name, spec, 0, 0)).stat().st_size
        for name, spec in layout.array_specs(recipe, len(views)).items()
    }
    row = row_expansion.to_tensors(cache.block(0, 0))
    tv = distances(views, row_expansion.full_logp(row, views.shape[1], row_expansion.tail_decoder(recipe, cache.basis)))
    size = sum(sizes[name] for name in ROW if name in sizes) / len(views)
    name = f"k {form.k}, rank {form.rank}, step {form.step:g}" if form.rank else f"k {form.k}, flat"
    basis_bytes = sum(sizes[name] for name in sizes if name.startswith("tail_"))
    records = (cache.path / schema.UNITS).stat().st_size
    beside = {"basis (once)": basis_bytes, "keys (a tar)": sizes["key"], "canary (a tar)": sizes["canary"]}
    return Line(name, size, tv), beside | {"record (a unit)": records}


def tinyvit(views: np.ndarray, k: int) -> Line:
    p_NK, class_NK = torch.from_numpy(views).softmax(dim=1).topk(k, dim=1)
    p_NK = p_NK.half().float()
    # Where float16 carries the mass past 1 its reader has negative probabilities; ours, here, nearly none.
    rest_N1 = (1 - p_NK.sum(dim=1, keepdim=True)).clamp(min=1e-7) / (views.shape[1] - k)
    p_NC = rest_N1.expand(-1, views.shape[1]).scatter(1, class_NK, p_NK.clamp(min=1e-8))
    return Line(f"TinyViT, k {k}", 4 * k + 4, distances(views, p_NC.log()))


def renormalised(views: np.ndarray, k: int) -> Line:
    """What a reader would get that gave the other classes nothing."""
    logp_NK, class_NK = torch.from_numpy(views).log_softmax(dim=1).topk(k, dim=1)
    logq_NC = torch.full(views.shape, -1e9).scatter(1, class_NK, logp_NK)
    return Line(f"k {k}, renormalised", 4 * k, distances(views, logq_NC))


def distances(views: np.ndarray, logq_NC: torch.Tensor) -> tuple[float, ...]:
    pairs = ((torch.from_numpy(views) / tau, logq_NC / tau) for tau in fidelity.TAUS)
    return tuple(float((p.softmax(1) - q.softmax(1)).abs().sum(1).double().mean() / 2) for p, q in pairs)


def markdown(lines: list[Line]) -> str:
    head = ["row", "bytes a view", "of 404", *(f"tau {tau}" for tau in fidelity.TAUS)]
    rows = [
        [line.name, f"{line.size:.1f}", f"{line.size / 404:.3f}", *(f"{tv:.4f}" for tv in line.tv)] for line in lines
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def shared(beside: dict[str, int]) -> Iterator[str]:
    """What rows share, by view of ImageNet: tars of 1,000 rows, units of 4 seeds."""
    basis, keys, canary, record_of_unit = beside.values()
    for seeds in (4, 300):
        size = basis / (1_281_167 * seeds) + (keys + canary) / (1000 * seeds) + record_of_unit / 4000
        yield f"of ImageNet with {seeds} seeds of each image that is {size:.1f} bytes a view"


def verdict(tiny: dict[int, Line], ours: dict[row_frontier.RowFormat, Line]) -> Iterator[str]:
    shares = {k: ours[row_frontier.RowFormat(k=k)].size / line.size for k, line in tiny.items()}
    yield f"without a tail, of TinyViT's bytes (target 0.7): {', '.join(f'k {k} {s:.3f}' for k, s in shares.items())}"
    rival = tiny[100]
    coded = [line for form, line in ours.items() if form.rank]
    for taus, share in ((range(1, 5), 0.2), (range(5), 0.5)):
        nearer = [line for line in coded if all(line.tv[tau] < rival.tv[tau] for tau in taus)]
        least = min(nearer, key=lambda line: line.size)
        where = "tau 2, 3, 5 and 10" if share == 0.2 else "every tau"
        yield f"nearer at {where}: {least.name} for {least.size / rival.size:.2f} of its 404 bytes (target {share})"


def draw(points: row_frontier.Frontier, tiny: list[Line], path: Path) -> None:
    style = {
        "svg.hashsalt": "tail",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    flat = [point for point in points.points if point.form.rank is None]
    coded = [point for point in points.points if point.form.rank]
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 3), layout="constrained")
        panels = figure.subplots(1, len(points.taus), sharex=True)
        for place, (axes, tau) in enumerate(zip(panels, points.taus, strict=True)):
            axes.plot(
                [line.size for line in tiny],
                [line.tv[place] for line in tiny],
                "s:",
                color="#d55e00",
                ms=4,
                label="TinyViT: 4k + 4 bytes, k 5 to 100",
            )
            axes.plot(
                [candidate.bytes_a_view for candidate in flat],
                [candidate.tv[place] for candidate in flat],
                "o--",
                color="#0072b2",
                ms=4,
                label="flat tail, k 5 to 100",
            )
            best = [
                candidate
                for at, candidate in enumerate(coded)
                if candidate.tv[place] <= min(p.tv[place] for p in coded[: at + 1])
            ]
            axes.plot(
                [candidate.bytes_a_view for candidate in best],
                [candidate.tv[place] for candidate in best],
                ".-",
                color="#009e73",
                label="transform tail, best of the grid at this tau",
            )
            axes.set(title=f"tau {tau}", xscale="log", ylim=(0, None), xticks=[20, 50, 100, 200, 400])
            axes.set_xticks([], minor=True)
            axes.set_xticklabels(["20", "50", "100", "200", "400"])
            axes.grid(alpha=0.2)
        panels[0].set_ylabel("mean total variation")
        panels[2].set_xlabel("bytes a view on disk")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        if path.suffix == ".svg":
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main()

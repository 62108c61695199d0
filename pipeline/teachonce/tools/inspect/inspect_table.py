"""A described cache as text for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from teachonce.core import hashing, terminal, text_tables
from teachonce.format import row_frontier, schema
from teachonce.store import tau_range
from teachonce.tools.inspect import describe

_WIDTH = 160
_DIGITS = 12
"""Hex digits of a digest that are shown: enough to tell two apart by eye."""
_DISTANCES = {"tv_mean": "TV mean", "tv_p99": "TV p99", "kl_mean": "KL mean", "kl_p99": "KL p99"}


def format_description(cache: describe.CacheDescription) -> str:
    """Identity, size, fidelity and reach of each store, and the frontier where there is one."""
    parts = [part for store in cache.stores.values() for part in _store(store)]
    if cache.frontier:
        parts.append(row_frontier.format_points(cache.frontier))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _store(store: describe.StoreDescription) -> Iterator[str]:
    yield store.path
    # A text with a line end in it would pass for a fact of its own.
    yield "\n".join(f"  {name:<12}{terminal.printable(value)}" for name, value in _facts(store))
    yield text_tables.format_table(_sizes(store), _WIDTH)
    if store.fidelity:
        yield text_tables.format_table(_fidelity(store), _WIDTH)
    yield _reach(store)


def _facts(store: describe.StoreDescription) -> Iterator[tuple[str, str]]:
    recipe, teacher = store.recipe, store.recipe.teacher
    arguments = "".join(f", {name} {value}" for name, value in teacher.arguments.items())
    yield "format", str(store.format)
    yield "fingerprint", store.fingerprint
    yield "teacher", f"{teacher.architecture}{arguments}, weights {teacher.weights_sha256[:_DIGITS]}…"
    yield "input", f"{teacher.size} px, mean {_numbers(teacher.mean)}, std {_numbers(teacher.std)}, {teacher.precision}"
    yield "classes", f"{teacher.num_classes:,}, {teacher.classes_sha256[:_DIGITS]}…"
    yield "views", hashing.canonical_json(recipe.policy.model_dump(mode="json", exclude_none=True))
    yield "row", _row(recipe)
    yield (
        "extent",
        (
            f"{store.images:,} images in {store.tars:,} tars × {store.aug_seeds:,} aug seeds = {store.views:,} views; "
            f"units of {store.seeds_per_unit:,} seeds, room for {store.rows_per_tar:,} rows a tar"
        ),
    )
    yield "top-1", _top1(store)
    for maker in store.made_by:
        versions = ", ".join(f"{name} {version}" for name, version in maker.versions.items())
        yield "made by", f"{maker.device}; {versions} ({maker.units:,} of {store.units:,} units)"
    yield "missing", f"{store.missing:,} objects" if store.missing else "nothing"


def _top1(store: describe.StoreDescription) -> str:
    if store.teacher_top1 is None:
        return "unknown: no image has a label"
    subset = "the views" if store.labelled == store.views else f"the {store.labelled:,} views with a label"
    return f"{100 * store.teacher_top1:.2f} % of {subset}"


def _row(recipe: schema.Recipe) -> str:
    if recipe.k == "all":
        return "k all: raw float32 logits"
    if isinstance(recipe.tail, schema.TransformTail):
        digest = recipe.tail.basis_sha256[:_DIGITS]
        return f"k {recipe.k}, transform tail: rank {recipe.tail.rank}, step {recipe.tail.step:g}, basis {digest}…"
    return f"k {recipe.k}, flat tail"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _sizes(store: describe.StoreDescription) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("on disk")
    for name in ("files", "bytes", "bytes a view"):
        table.add_column(name, justify="right")
    for name, part in store.parts.items():
        table.add_row(name, f"{part.objects:,}", f"{part.bytes:,}", f"{part.bytes_a_view:.2f}")
    table.add_row("all", f"{store.files:,}", f"{store.bytes:,}", f"{store.bytes_a_view:.2f}")
    return table


def _fidelity(store: describe.StoreDescription) -> Table:
    distances_by_k = tau_range.distances_by_k(store.fidelity)
    taus = sorted({tau for row in distances_by_k.values() for tau in row})
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("distance to the full softmax")
    for tau in taus:
        table.add_column(f"tau {tau}", justify="right")
    for k, row in distances_by_k.items():
        for name, words in _DISTANCES.items():
            table.add_row(f"k {k}, {words}", *(f"{row[tau][name]:.4f}" if tau in row else "" for tau in taus))
    return table


def _reach(store: describe.StoreDescription) -> str:
    if store.recipe.k == "all":
        return "Carries every tau exactly: rows are whole."
    carried = "; ".join(
        f"k {k}: tau {', '.join(map(str, taus))}" if taus else f"k {k}: none" for k, taus in store.carries.items()
    )
    return f"Carries, of the measured taus, within a mean TV of {store.max_tv:g}: {carried or 'nothing was measured'}."

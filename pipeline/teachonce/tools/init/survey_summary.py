"""What `teachonce init` saw and chose, as text."""

import unicodedata
from collections import Counter
from collections.abc import Iterator

from teachonce.core import errors
from teachonce.shards import index
from teachonce.tools.init import image_survey, run_plan, source_layout

_MOST_CLASSES = 20
_MOST_LISTED = 3
_UNEVEN = 5
_FEW = 5


def format_survey(layout: source_layout.Layout, survey: image_survey.Survey) -> str:
    """What was seen: counts, classes, sizes, and what is odd."""
    train, val = (survey.total(name) for name in index.SPLITS)
    lines = [f"{layout.root}: {train + val:,} images, {train:,} to learn from and {val:,} to measure on"]
    if layout.has_labels:
        lines += _class_lines(survey)
    lines.append(f"  sizes: {_sizes(survey)}")
    lines += [f"  note: {note}" for note in (*layout.notes, *_oddities(layout, survey))]
    return "\n".join(lines)


def _class_lines(survey: image_survey.Survey) -> Iterator[str]:
    counts: Counter[int] = sum(survey.counts.values(), Counter())
    labels = sorted(range(len(survey.classes)), key=lambda label: -counts[label])
    yield f"  {len(labels):,} classes, with their images:"
    shown = labels if len(labels) <= _MOST_CLASSES else labels[: _MOST_CLASSES // 2] + labels[-_MOST_CLASSES // 2 :]
    for label in shown:
        yield f"    {counts[label]:>7,}  {errors.shorten(survey.classes[label])}"
    if len(labels) > len(shown):
        yield f"    … and {len(labels) - len(shown):,} classes between them"
    if counts[index.UNLABELLED]:
        yield f"    {counts[index.UNLABELLED]:>7,}  without a label"


def _sizes(survey: image_survey.Survey) -> str:
    areas = sorted(survey.sizes, key=lambda size: size[0] * size[1])
    (least, middle, most) = (f"{areas[place][0]} x {areas[place][1]}" for place in (0, len(areas) // 2, -1))
    return f"all {middle} pixels" if least == most else f"{least} to {most} pixels, {middle} the median"


def _oddities(layout: source_layout.Layout, survey: image_survey.Survey) -> Iterator[str]:
    total = sum(survey.total(name) for name in index.SPLITS)
    pairs = [f"{first} = {second}" for first, second in survey.copies]
    tiny = survey.tiny()
    lines = {
        f"{survey.decoded:,} of the images were opened; what follows is of those": survey.decoded < total,
        f"{_counted(len(survey.bad))} cannot be used: {_listed(survey.bad)}": survey.bad,
        f"{_counted(len(pairs))} with the bytes of another: {_listed(pairs)}": pairs,
        f"{_counted(survey.grey, 'grey ')}: taken as colour ones, which is fine": survey.grey,
        f"{_counted(tiny)} with a side below 32 pixels: to be enlarged": tiny,
        f"{_counted(survey.capital_endings)} whose ending has capitals, such as .JPG: fine": survey.capital_endings,
        _large_line(layout, survey): survey.are_large(),
    }
    yield from (line for line, is_so in lines.items() if is_so)
    yield from _class_oddities(survey)


def _large_line(layout: source_layout.Layout, survey: image_survey.Survey) -> str:
    if "max_side" in layout.settings:
        return f"the images are large: they are stored with at most {layout.settings['max_side'].value} pixels a side"
    return f"the images are large: {1000 * survey.decode_s:.0f} ms to decode one, for every view of it"


def _class_oddities(survey: image_survey.Survey) -> Iterator[str]:
    counts = [survey.counts["train"][label] for label in range(len(survey.classes))]
    if not any(counts):
        return
    if max(counts) >= _UNEVEN * max(1, min(counts)):
        yield f"the classes are uneven, {min(counts):,} to {max(counts):,} training images: read accuracy by class"
    spellings = Counter(unicodedata.normalize("NFC", name) for name in survey.classes)
    if alike := [name for name, count in spellings.items() if count > 1]:
        yield f"{len(alike)} classes are there twice, spelt otherwise and looking the same: {_listed(alike)}"
    few = [name for name, count in zip(survey.classes, counts, strict=True) if count < _FEW]
    if few:
        have = "class has" if len(few) == 1 else "classes have"
        yield f"{len(few)} {have} fewer than {_FEW} training images: {_listed(few)}"


def _counted(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}image{'' if count == 1 else 's'}"


def _listed(names: list[str]) -> str:
    more = f"; and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return "; ".join(names[:_MOST_LISTED]) + more


def format_plan(plan: run_plan.RunPlan, price: run_plan.Price) -> str:
    """What was chosen, and what it takes."""
    size = plan.preset.removeprefix("photos_")
    parts = [f"cache {_minutes(price.cache_s)}", f"{plan.students} students {_minutes(price.students_s)}"]
    if price.teacher_s:
        parts.insert(0, f"teacher {_minutes(price.teacher_s)}")
    rows = f"rows {plan.cache}; {plan.epochs} epochs a student"
    measured = "A measured estimate: dvc repro prepare && teachonce estimate"
    return (
        f"chosen: views of {size} pixels, {plan.aug_seeds} of each image; teacher {plan.teacher}; {rows}\n"
        f"takes about {_minutes(price.total_s)} on {price.cores} cores, roughly: {', '.join(parts)}. {measured}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"

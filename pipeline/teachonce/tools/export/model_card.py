"""The model card: what a student is, who taught it, how good it is, and how to make it again."""

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath

import jinja2
import yaml

from teachonce.core import hashing, terminal
from teachonce.evaluate import evaluation_record, predictions
from teachonce.shards import index
from teachonce.student import student_record, student_spec
from teachonce.tools.export import onnx_graph
from teachonce.views import view_policy

NAME = "README.md"
_TEMPLATE = "card.md.jinja"
_MARKUP = re.compile(r"[\\`*\[\]<>|&]")


class _Code(str):
    """Text that stands in a block of code or in the YAML header, where Markdown's escapes would show."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CardData:
    """All that a card is written from."""

    name: str
    """Name of the student, the title of the card."""
    record: student_record.StudentRecord
    """How the student was made."""
    evaluation: evaluation_record.Evaluation
    """How good the student is."""
    shards: index.Index
    """Index of the shards: classes, tars and counts of images."""
    views: view_policy.Policy
    """Policy of the views that it was measured on."""
    images: int
    """Validation images that the ONNX graph was checked on."""
    difference: float
    """Largest difference of the graph's logits from torch's."""

    @property
    def head(self) -> str:
        """The reading of the answer that is handed over."""
        return "both" if "both" in self.evaluation.heads else "class"


def to_markdown(content: CardData) -> str:
    """The card as Markdown with a YAML header in the form that model hubs read."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown, which is escaped otherwise
        # Every value goes through it, so that no name of a class or student can become markup or a link.
        finalize=_escaped,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "share": _share, "yaml": _yaml, "code": _Code}
    record = content.record
    return environment.get_template(_TEMPLATE).render(
        content=content,
        record=record,
        evaluation=content.evaluation,
        header=_header(content),
        heads={name: title for name, title in predictions.HEAD_TITLES.items() if name in content.evaluation.heads},
        kind=_kind(content.evaluation.student),
        # One digest stands for all tars, in their order: a card of a thousand of them could not be read.
        tars_digest=hashing.json_digest([shard.sha256 for shard in content.shards.shardlist]),
        accepted=[_without_folder(line) for line in content.evaluation.accepted],
        config={"students": {content.name: _entry(record.student)}},
        recipe=record.recipe.model_dump(mode="json"),
        views={
            "policy": record.cache.policy.model_dump(mode="json", exclude_none=True),
            "evaluation": content.views.model_dump(mode="json", exclude_none=True),
            "aug_seeds": record.aug_seeds,
        },
        onnx={name: metadata.version(name) for name in ("torch", *onnx_graph.NEEDED)},
        tolerance=f"{onnx_graph.TOLERANCE:g}",
    )


def _escaped(value: object) -> object:
    """A text of data as Markdown shows it letter by letter, without controls and marks of direction."""
    if isinstance(value, _Code):
        # Three backticks would end its block, and what follows would be Markdown of whoever wrote the text.
        return terminal.printable_lines(value).replace("```", "'''")
    return _MARKUP.sub(r"\\\g<0>", terminal.printable(value)) if isinstance(value, str) else value


def _header(content: CardData) -> dict[str, object]:
    evaluation, score = content.evaluation, content.evaluation.heads[content.head]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {
            "type": "webdataset",
            "name": f"{evaluation.images:,} validation images of {evaluation.classes:,} classes",
        },
        "metrics": _metrics(score),
    }
    # Of the head that is handed over: a hub shows one number, and must not show that of another answer.
    tags = ["image-classification", "timm", "deit", "onnx", "teachonce"]
    return {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": tags if evaluation.student.kind == "none" else [*tags, "knowledge-distillation"],
        # A hub takes no result without a metric.
        **({"model-index": [{"name": content.name, "results": [result]}]} if result["metrics"] else {}),
    }


def _metrics(score: evaluation_record.Accuracy) -> list[dict[str, object]]:
    if score.top1 is None or score.top1_se is None:
        return []
    name = f"top-1 in %, ± {100 * score.top1_se:.2f} (one standard error)"
    return [{"type": "accuracy", "value": round(100 * score.top1, 2), "name": name}]


def _kind(knobs: evaluation_record.Knobs) -> str:
    if knobs.kind == "none":
        return "trained on labels alone"
    tau = "" if knobs.tau is None else f", tau {knobs.tau:g}"
    return f"{knobs.kind} distillation, alpha {knobs.alpha:g}{tau}"


def _without_folder(line: str) -> str:
    """A line that begins with a store's path, with the name of the store alone: a card tells of no one's folders."""
    path, colon, rest = line.partition(": ")
    return f"{PurePath(path).name}{colon}{rest}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _share(score: evaluation_record.Accuracy) -> str:
    if score.top1 is None or score.top1_se is None:
        return ""
    return f"{100 * score.top1:.2f} ± {100 * score.top1_se:.2f}"


def _entry(spec: student_spec.StudentSpec) -> dict[str, object]:
    return {key: value for key, value in student_spec.all_keys(spec).items() if value is not None}


def _yaml(data: object) -> _Code:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return _Code(text)

"""Get the teacher its configuration asks for, and say how good it is."""

import re
from pathlib import Path

from teachonce.base import outputs
from teachonce.shards import index
from teachonce.teacher import config, fit, model, predict
from teachonce.views import policy

_KIND = outputs.Kind("an earlier teacher", model.IDENTITY, b'"weights_sha256"', re.compile(re.escape(model.WEIGHTS)))


def obtain(
    settings: config.TeacherConfig, shards: index.Shards, evaluation: policy.Policy, out: Path
) -> dict[str, object]:
    """Build, train where asked, save, measure.

    Args:
        settings: which network and whose weights.
        shards: the data; its classes must be the network's.
        evaluation: the crop for the validation accuracy.
        out: the teacher's folder.

    Returns:
        Facts for the metrics file; `val_top1` is that of the labelled images, left out where there are none.

    Raises:
        ConfigError: the architecture, the weights or the folder to write are refused.
    """
    weights = Path(settings.weights.path) if isinstance(settings.weights, config.Checkpoint) else None
    output = outputs.Output(out, _KIND, (shards.base, weights))
    output.require_replaceable()
    device = model.device()
    network = model.build(settings, len(shards.index.classes))
    trained = {}
    if isinstance(settings.weights, config.Fit):
        trained = fit.fit(network, settings, settings.weights, shards, device)
    with output.draft() as draft:
        identity = model.save(draft, network, settings, shards.index.classes)
    # Measured on what was saved: the numbers are those of the file.
    teacher = predict.Predictor(model.load(out, device), identity, device)
    top1 = fit.accuracy(
        teacher, shards, "val", size=settings.size, evaluation=evaluation, batch_size=settings.batch_size
    )
    return {
        "architecture": settings.architecture,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "val_images": shards.index.nsamples("val"),
        **({} if top1 is None else {"val_top1": top1}),
        **{f"train_{name}": value for name, value in trained.items()},
    }

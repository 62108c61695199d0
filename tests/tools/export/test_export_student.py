"""A folder that others read: timm and ONNX Runtime give the student's own answers, and the card tells what is true."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import fsspec
import huggingface_hub
import numpy as np
import onnxruntime
import pytest
import reseal
import safetensors.torch
import timm
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from teachonce.core import config, errors, files, hashing
from teachonce.evaluate import validation_batches
from teachonce.shards import decode, index, sample_reader
from teachonce.store import fingerprint, store_reader
from teachonce.student import student_model, student_spec, train_config
from teachonce.tools.export import export_command, export_student, hub_config, image_views, onnx_graph
from teachonce.tools.inspect import describe
from teachonce.views import draw, render, view_policy, views_config

ROOT = Path(__file__).parents[3]
FILES = {"model.safetensors", "config.json", "model.onnx", "README.md"}


def paths(root: Path, name: str, out: Path) -> export_student.ExportPaths:
    return export_student.ExportPaths(
        weights=root / "students" / name,
        shards=root / "shards",
        cache=root / "cache/val.zarr",
        metrics=root / "records/evaluate" / f"{name}.json",
        out=out,
    )


@pytest.fixture(scope="module")
def handed(whole, tmp_path_factory):
    """The exports of a student with two heads and of one without token, to be read only."""
    folder = tmp_path_factory.mktemp("handed")
    for name in ("zeal", "plain"):
        export_student.export(name, paths(whole.root, name, folder / name))
    return folder


def pixels(whole) -> np.ndarray:
    """The validation images as students are measured on them."""
    cache = store_reader.open(whole.root / "cache/val.zarr")
    stream = validation_batches.BatchStream(
        validation_batches.EvaluationData(index.read(whole.root / "shards"), cache, 16), 5
    )
    return np.concatenate([batch.pixels for batch in stream.batches()])


def originals(whole) -> list[np.ndarray]:
    """The validation images as they were decoded."""
    shards = index.read(whole.root / "shards")
    return [
        decode.rgb_pixels(sample.image, sample.key)
        for entry in shards.index.of_split("val")
        for sample in sample_reader.verified_samples(entry, shards.path(entry))
    ]


def checked(whole) -> list[onnx_graph.CheckedImage]:
    return list(map(onnx_graph.CheckedImage, originals(whole), pixels(whole)))


def heads(whole, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The answers of the student as training left it."""
    record = json.loads((whole.root / "students" / name / "record.json").read_text())
    settings = config.parse(record["recipe"], train_config.TrainConfig, "x")
    student = student_spec.Student(name, student_spec.parse_spec(record["student"], Path("x"), name), settings)
    folder = whole.root / "students" / name
    network = student_model.load((folder / student_model.EMA).read_bytes(), student, 8, folder=folder)
    with torch.inference_mode():
        return student_model.head_logits(network, (torch.from_numpy(pixels(whole)).float() / 255 - 0.5) / 0.5)


def answer(whole, name: str) -> torch.Tensor:
    class_, dist = heads(whole, name)
    return class_ if dist is None else (class_ + dist) / 2


@pytest.mark.parametrize("name", ["zeal", "plain"])
def test_timm_reads_the_folder_by_itself(whole, handed, name):
    assert {path.name for path in (handed / name).iterdir()} == FILES
    network = timm.create_model(f"local-dir:{handed / name}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(network)
    assert [list(data[name]) for name in ("input_size", "mean", "std")] == [[3, 16, 16], [0.5] * 3, [0.5] * 3]
    assert list(network.pretrained_cfg["label_names"]) == list(index.read(whole.root / "shards").index.classes)
    with torch.inference_mode():
        logits_BC = network((torch.from_numpy(pixels(whole)).float() / 255 - 0.5) / 0.5)
    assert torch.allclose(logits_BC, answer(whole, name), atol=1e-6)
    # Another task: the heads are made anew, everything else is taken over.
    other = timm.create_model(f"local-dir:{handed / name}", pretrained=True, num_classes=3)
    assert torch.equal(other.pos_embed, network.pos_embed)
    assert other.head.out_features == 3


@pytest.mark.parametrize("name", ["zeal", "plain"])
def test_onnx_answers_as_torch_does_in_any_batch_size(whole, handed, name):
    session = onnxruntime.InferenceSession(handed / name / "model.onnx", providers=["CPUExecutionProvider"])
    images, wanted = np.stack(originals(whole)), answer(whole, name).numpy()
    assert len(images) == 13
    for size in (1, 5, 13):
        logits_BC = session.run(["logits"], {"images": images[:size]})[0]
        assert logits_BC.shape == (size, 8)
        assert np.abs(logits_BC - wanted[:size]).max() < onnx_graph.TOLERANCE
    assert np.ptp(wanted, axis=0).max() > 100 * onnx_graph.TOLERANCE


SIDES = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 130, 777]))


@given(
    seed=st.integers(0, 2**32),
    sides=st.tuples(SIDES, SIDES),
    center=st.sampled_from([None, 0.01, 0.5, 0.875, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    size=st.sampled_from([1, 16, 33]),
)
def test_the_graph_crops_and_resizes_any_image_to_the_view_that_was_measured(seed, sides, center, interpolation, size):
    policy = view_policy.Policy(center=center, interpolation=interpolation)
    raw = np.random.Philox(key=seed).random_raw(sides[0] * sides[1] * 3).astype(np.uint8)
    # Hard edges, which bicubic overshoots, beside noise.
    image_HWC = np.where(raw > 200, raw, 255 * (raw > 100)).astype(np.uint8).reshape(*sides, 3)
    view_CHW = render.to_pixels(image_HWC, draw.view_params(policy, "key", 0), size)
    levels = image_views.ImageViews(policy, size)(torch.from_numpy(image_HWC[None]))
    assert np.array_equal(levels[0].numpy(), view_CHW)


@pytest.mark.parametrize(
    ("name", "sides"), [("zeal", (20, 20)), ("zeal", (301, 97)), ("plain", (7, 40)), ("zeal", (1, 1))]
)
def test_the_exported_graph_takes_images_of_any_size(whole, handed, name, sides):
    policy = store_reader.open(whole.root / "cache/val.zarr").recipe.policy
    raw = np.random.Philox(key=3).random_raw(2 * sides[0] * sides[1] * 3).astype(np.uint8)
    images = raw.reshape(2, *sides, 3)
    views = np.stack([render.to_pixels(image, draw.view_params(policy, "key", 0), 16) for image in images])
    network = timm.create_model(f"local-dir:{handed / name}", pretrained=True).eval()
    with torch.inference_mode():
        wanted_BC = network((torch.from_numpy(views).float() / 255 - 0.5) / 0.5).numpy()
    session = onnxruntime.InferenceSession(handed / name / "model.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(session.run(["logits"], {"images": images})[0] - wanted_BC).max() < onnx_graph.TOLERANCE


def test_the_graph_is_as_accurate_as_evaluate_says(whole, handed):
    metrics = json.loads((whole.root / "records/evaluate/zeal.json").read_text())
    session = onnxruntime.InferenceSession(handed / "zeal/model.onnx", providers=["CPUExecutionProvider"])
    answers = [session.run(["logits"], {"images": image[None]})[0].argmax() for image in originals(whole)]
    labels = [row % 8 for row in range(13)]
    assert np.mean(np.equal(answers, labels)) == metrics["heads"]["both"]["top1"]


def test_the_one_line_of_the_card_answers_a_photograph(whole, handed, tmp_path):
    """With its EXIF turn, as everywhere else."""
    (line,) = re.findall(r"```bash\n(.*)\n```", card(handed / "zeal")[0])
    image = Image.fromarray(np.mgrid[0:120, 0:200].astype(np.uint8)[0]).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif)
    shutil.copy(handed / "zeal/model.onnx", tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = subprocess.check_output(shlex.split(line), cwd=tmp_path, env=environment, text=True)
    upright = decode.rgb_pixels((tmp_path / "photo.jpg").read_bytes(), "photo.jpg")
    assert upright.shape == (200, 120, 3)
    session = onnxruntime.InferenceSession(handed / "zeal/model.onnx", providers=["CPUExecutionProvider"])
    wanted = session.run(["logits"], {"images": upright[None]})[0][0]
    assert np.allclose([float(word) for word in re.findall(r"-?\d[\d.e+-]*", said)], wanted, rtol=1e-4, atol=1e-5)


def test_the_two_heads_differ_so_that_their_mean_is_neither(whole):
    class_, dist = heads(whole, "zeal")
    assert (class_ - dist).abs().max() > 100 * onnx_graph.TOLERANCE


def test_the_same_student_gives_the_same_bytes_and_none_of_this_machine(whole, handed, tmp_path):
    export_student.export("zeal", paths(whole.root, "zeal", tmp_path / "zeal"))
    for name in FILES:
        written = (tmp_path / "zeal" / name).read_bytes()
        assert written == (handed / "zeal" / name).read_bytes(), name
        for trace in (ROOT, whole.root, tmp_path, sys.prefix):
            assert str(trace).encode() not in written, name
    assert (tmp_path / "zeal/model.safetensors").stat().st_nlink == 1


def test_shards_and_store_may_lie_behind_urls(whole, handed, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    for name in ("shards", "cache"):
        fsspec.filesystem("memory").put(str(whole.root / name), f"/exported/{name}", recursive=True)
    at = {"shards": "memory://exported/shards", "cache": "memory://exported/cache/val.zarr"}
    export_student.export("zeal", dataclasses.replace(paths(whole.root, "zeal", tmp_path / "zeal"), **at))
    assert (tmp_path / "zeal/README.md").read_bytes() == (handed / "zeal/README.md").read_bytes()


def card(folder: Path) -> tuple[str, dict[str, object], list[str]]:
    """Text, header and YAML blocks of a card."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text, yaml.safe_load(text.split("---\n")[1]), re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("name", ["zeal", "plain"])
def test_the_card_holds_what_makes_the_student_again(whole, handed, tmp_path, name):
    written = [tmp_path / f"{part}.yaml" for part in ("params", "student", "views")]
    for path, block in zip(written, card(handed / name)[2], strict=True):
        path.write_text(block, encoding="utf-8")
    record = json.loads((whole.root / "students" / name / "record.json").read_text())
    assert student_spec.all_keys(student_spec.read_spec(written[0], name)) == record["student"]
    assert config.load(written[1], train_config.TrainConfig).model_dump(mode="json") == record["recipe"]
    views = config.load(written[2], views_config.ViewsConfig)
    assert views.policy.model_dump(mode="json") == record["cache"]["policy"]
    assert views.evaluation == view_policy.Policy(center=0.75)
    assert views.aug_seeds == 2


def test_the_card_tells_teacher_cache_and_accuracy(whole, handed):
    text, header, _ = card(handed / "zeal")
    assert re.search(r"On 13 validation images those of `model.onnx` differ from torch's\nby at most \d\.\de-", text)
    metrics = json.loads((whole.root / "records/evaluate/zeal.json").read_text())
    both, teacher = metrics["heads"]["both"], metrics["teacher"]
    assert f"| both (mean) | {100 * both['top1']:.2f} ± {100 * both['top1_se']:.2f} |" in text
    assert f"| teacher | {100 * teacher['top1']:.2f} ± {100 * teacher['top1_se']:.2f} |" in text
    assert "soft distillation, alpha 0.5, tau 2" in text
    assert hashing.sha256_file(whole.root / "teacher/model.safetensors") in text
    assert hashing.sha256_file(handed / "zeal/model.safetensors") in text
    cache = store_reader.open(whole.root / "cache/train.zarr")
    assert f"`{fingerprint.cache_digest(cache)}`" in text
    assert describe.summarise_store(whole.root / "cache/train.zarr", 0.1).fingerprint in text
    assert "8 training and 13 validation images of 8 classes in 4 WebDataset tars" in text
    assert "Refusals that were overruled: none." in text
    assert f"| {torch.__version__.partition('+')[0]} |" in text
    assert "license" not in header
    assert "knowledge-distillation" in header["tags"]
    assert "knowledge-distillation" not in card(handed / "plain")[1]["tags"]
    assert "distillation head" not in card(handed / "plain")[0]


def test_a_hub_understands_the_header(whole, handed):
    data = huggingface_hub.ModelCard.load(handed / "zeal/README.md").data
    metrics = json.loads((whole.root / "records/evaluate/zeal.json").read_text())
    assert (data.library_name, data.pipeline_tag, data.license) == ("timm", "image-classification", None)
    (result,) = data.eval_results
    assert result.metric_type == "accuracy"
    assert result.metric_value == round(100 * metrics["heads"]["both"]["top1"], 2)
    assert f"± {100 * metrics['heads']['both']['top1_se']:.2f} (one standard error)" in result.metric_name


def test_what_was_overruled_and_warned_of_is_on_the_card_without_folders(copied, tmp_path):
    path = copied.root / "students/zeal/record.json"
    tail = {"rank": 4, "step": 0.5, "basis_sha256": "0" * 64}
    cache = {**json.loads(path.read_text())["cache"], "k": 3, "tail": tail}
    reseal.change(path, tau_beyond_cache="tau 9 with k 3: rows are far", cache=cache)
    line = f"{copied.root}/cache/val.zarr: views no longer replay: other versions"
    change(copied.root / "records/evaluate/zeal.json", accepted=[line])
    export_student.export("zeal", paths(copied.root, "zeal", tmp_path / "out"))
    text = card(tmp_path / "out")[0]
    assert "- a row: the 3 likeliest classes, tail of 4 coefficients, of 2 views of each training image\n" in text
    assert "\ntau 9 with k 3: rows are far\n" in text
    assert "\nval.zarr: views no longer replay: other versions\n" in text
    assert "none." not in text
    assert str(copied.root) not in text


@pytest.mark.parametrize(("heads", "more"), [("kept", "."), ("fresh", ", whose heads were of other classes.")])
def test_the_card_tells_what_it_was_fine_tuned_from(copied, handed, tmp_path, heads, more):
    begin = {"sha256": "5" * 64, "heads": heads}
    reseal.change(copied.root / "students/zeal/record.json", start=begin)
    export_student.export("zeal", paths(copied.root, "zeal", tmp_path / "out"))
    sentence = f"It was fine-tuned from weights with sha256 `{'5' * 64}`"
    assert f"\n{sentence}{more}\n" in card(tmp_path / "out")[0]
    assert "fine-tuned" not in card(handed / "zeal")[0]


@pytest.mark.parametrize("center", [None, 0.75])
def test_timm_shows_the_model_the_part_of_an_image_it_was_measured_on(center):
    evaluation = view_policy.Policy(center=center)
    ramp = np.mgrid[0:120, 0:200].astype(np.uint8)
    image = np.stack([*ramp, ramp[0]], axis=2)
    ours = render.to_pixels(image, draw.view_params(evaluation, "key", 0), 16)
    data = {"input_size": (3, 16, 16), "mean": (0.0,) * 3, "std": (1.0,) * 3, **hub_config.crop_settings(evaluation)}
    reference = timm.data.create_transform(**data)(Image.fromarray(image)) * 255
    assert np.abs(ours - reference.numpy()).max() <= 6  # a pixel is 4 to 13 levels wide here


def change(path: Path, **values: object) -> None:
    files.write_json(path, {**json.loads(path.read_text()), **values})


def refused(root: Path, name: str, out: Path, error: type[errors.TeachonceError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        export_student.export(name, paths(root, name, out))
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_weights_of_another_student_are_refused(copied, tmp_path):
    shutil.copyfile(copied.root / "students/hard-1/model.safetensors", copied.root / "students/zeal/model.safetensors")
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, "sha256 must be that of its record")


def test_metrics_of_another_student_are_refused(copied, tmp_path):
    shutil.copyfile(copied.root / "records/evaluate/hard-1.json", copied.root / "records/evaluate/zeal.json")
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, "student must be that of the student and")


def test_metrics_of_other_weights_of_the_same_student_are_refused(copied, tmp_path):
    change(copied.root / "records/evaluate/zeal.json", weights_sha256="0" * 64)
    match = r"zeal\.json: weights_sha256 must be .*\. Got 0{64}\. Evaluate it again: dvc repro evaluate"
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, match)


@pytest.mark.parametrize("factor", [-1, 3])
def test_a_head_that_was_changed_is_refused_with_both_digests(copied, tmp_path, factor):
    path = copied.root / "students/zeal/model.safetensors"
    before, tensors = hashing.sha256_file(path), safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "head.weight": factor * tensors["head.weight"]}, path)
    match = rf"{path}: sha256 must be that of its record, {before}\. Got {hashing.sha256_file(path)}\. Train it again"
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, match)


def test_metrics_on_other_images_are_refused(copied, tmp_path):
    change(copied.root / "records/evaluate/zeal.json", images=12)
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, r"images must be .*, 13\. Got 12")


@pytest.mark.parametrize(
    "missing", ["students/zeal/record.json", "students/zeal/model.safetensors", "records/evaluate/zeal.json"]
)
def test_what_is_missing_is_named_with_its_cure(copied, tmp_path, missing):
    (copied.root / missing).unlink()
    match = rf"{missing}: cannot be read .*\. .* it again: dvc repro"
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, match)


def test_a_misspelt_student_is_told_the_right_name(whole, tmp_path):
    match = r"students/zael: is missing\. Train it: .*dvc checkout\. Did you mean zeal\?$"
    refused(whole.root, "zael", tmp_path / "out", errors.DataError, match)


def test_a_record_that_lacks_its_cache_is_refused(copied, tmp_path):
    path = copied.root / "students/zeal/record.json"
    reseal.change(path, drop={"cache_fingerprint"})
    refused(copied.root, "zeal", tmp_path / "out", errors.DataError, "cache_fingerprint is missing")


def test_a_store_of_another_teacher_is_refused(copied, tmp_path):
    path = copied.root / "students/zeal/record.json"
    cache = json.loads(path.read_text())["cache"]
    cache["teacher"]["weights_sha256"] = "0" * 64
    reseal.change(path, cache=cache)
    refused(copied.root, "zeal", tmp_path / "out", errors.IdentityError, "teacher must be the student's, 0000")


@pytest.mark.parametrize("name", onnx_graph.NEEDED)
def test_without_the_extra_one_line_says_so(whole, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as good as not installed
    match = rf"export: {name} must be installed\. Install them: pip install 'teachonce\[export\]'"
    refused(whole.root, "zeal", tmp_path / "out", errors.ConfigError, match)


def test_a_graph_that_answers_otherwise_is_refused(whole, handed):
    record = json.loads((whole.root / "students/zeal/record.json").read_text())
    settings = config.parse(record["recipe"], train_config.TrainConfig, "x")
    student = student_spec.Student("x", student_spec.parse_spec(record["student"], Path("x"), "x"), settings)
    folder = whole.root / "students/zeal"
    network = student_model.load((folder / student_model.EMA).read_bytes(), student, 8, folder=folder)
    onnx_graph.compare_with_torch(handed / "zeal/model.onnx", network, settings, checked(whole))
    with torch.no_grad():
        network.head.bias[3] += 0.01
    with pytest.raises(
        errors.NumericsError, match=r"logits must be at most 0\.0001 from torch's on 13 images\. Got 0\.005"
    ):
        onnx_graph.compare_with_torch(handed / "zeal/model.onnx", network, settings, checked(whole))


def test_a_folder_with_other_files_is_left_alone(whole, tmp_path):
    (tmp_path / "LICENSE").touch()
    with pytest.raises(
        errors.ConfigError, match=r"--out must be new, empty, or an earlier export\. Got a folder with LICENSE"
    ):
        export_student.export("zeal", paths(whole.root, "zeal", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["LICENSE"]


def test_the_command_says_how_near_the_graph_is(whole, tmp_path, monkeypatch, capsys):
    words = [
        part
        for name, value in dataclasses.asdict(paths(whole.root, "hard-1", tmp_path / "out")).items()
        for part in (f"--{name}", str(value))
    ]
    export_command.main(["--student", "hard-1", *words])
    assert re.fullmatch(
        rf"{tmp_path}/out: ONNX differs from torch by \d\.\de-\d\d on 13 validation images\n", capsys.readouterr().out
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_without_labels_the_card_tells_agreement_alone(bare, tmp_path):
    """A hub refuses a result without a metric."""
    export_student.export("twin", paths(bare.root, "twin", tmp_path / "twin"))
    card = huggingface_hub.ModelCard.load(tmp_path / "twin" / "README.md", ignore_metadata_errors=False)
    assert card.data.eval_results is None
    assert "13 validation images, 0 of them with a label;" in card.text
    rows = [line for line in card.text.splitlines() if line.startswith(("| distillation head", "| teacher"))]
    assert re.fullmatch(r"\| distillation head \|  \|  \| [\d.]+ \| [\d.]+ \|", rows[0])
    assert rows[1].strip("| ") == "teacher"


def test_texts_of_others_are_shown_on_the_card_and_do_nothing(copied, tmp_path):
    hostile = "![x](http://x)<img src=x>`a` | b\n# c\n```\x1b[2J\x07\u202e&amp;"
    path = copied.root / "records/evaluate/zeal.json"
    files.write_json(path, json.loads(path.read_text()) | {"accepted": [hostile]})
    path = copied.root / "students/zeal/record.json"
    data = json.loads(path.read_text())
    data["versions"] |= {hostile: hostile}
    data["cache"]["teacher"]["arguments"] = {hostile: hostile}
    data["tau_beyond_cache"] = hostile
    reseal.change(path, **data)
    path = copied.root / "cache/val.zarr/zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["teachonce"]["recipe"]["teacher"]["arguments"] = {hostile: hostile}
    path.unlink()
    files.write_json(path, group)
    export_student.export("zeal", paths(copied.root, "zeal", tmp_path / "out"))
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert not {unicodedata.category(letter) for letter in text if letter != "\n"} & {"Cc", "Cf", "Zl", "Zp"}
    blocks = text.split("```")
    assert len(blocks) == 1 + 2 * 7, "a block of code ended early"
    outside = "".join(blocks[::2])
    assert not re.search(r"(?<!\\)[!\[<]x|(?<!\\)[\[<]|(?m:^# c)", outside.partition("\n---\n")[2])
    assert outside.count(r"!\[x\](http://x)\<img src=x\>\`a\` \| b�# c�\`\`\`�\[2J��&amp;".replace("&", r"\&")) == 4
    assert all("\\" not in block for block in blocks[1::2] if "![x]" in block)

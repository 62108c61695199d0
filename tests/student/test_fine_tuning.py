"""Fine-tuning: another student's weights at another size, from the same cache; positions keep their length."""

import json
import re
import shutil
from pathlib import Path

import feed
import numpy as np
import pytest
import reseal
import timm
import torch
from runs import cost, end, in_process, refusal
from runs import start as start_run
from safetensors.torch import load_file, save_file

from teachonce.core import config, errors, hashing
from teachonce.shards import decode, index
from teachonce.store import store_reader
from teachonce.student import batching, fine_tuning, schedule, student_model, student_spec, train_config, trainer
from teachonce.views import draw, render

CLASSES = tuple("0123456789")
MODEL = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SMALL = {"size": 32, "arguments": {**MODEL, "img_size": 32}, "epochs": 2, "warmup_epochs": 0, "batch_size": 16}
LARGE = {**SMALL, "size": 48, "arguments": {**MODEL, "img_size": 48}, "epochs": 1, "drop_path": 0.0}
HARD = {"model": "x", "kind": "hard", "alpha": 0.5, "seed": 3}


def sized(side: int, seed: int = 0) -> torch.Tensor:
    bits = np.random.Philox(key=seed).random_raw(side * side * 12) >> 40
    return torch.from_numpy(bits.astype(np.float32) / 2**23 - 1).reshape(1, side * side, 12)


def weights(before: int, after: int, kernel) -> np.ndarray:
    """Of the old places in each new one, along one axis: pixel centres, the border repeated."""
    found = np.zeros((after, before))
    for place in range(after):
        at = (place + 0.5) * before / after - 0.5
        for near in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            found[place, min(max(near, 0), before - 1)] += kernel(abs(at - near))
    return found


def cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def linear(x: float) -> float:
    return max(0.0, 1 - x)


def anew(old_PD: np.ndarray, side: int) -> np.ndarray:
    """The positions in float64, written again."""
    before = round(len(old_PD) ** 0.5)
    grid = old_PD.astype(float).reshape(before, before, -1)

    def resampled(values: np.ndarray, kernel) -> np.ndarray:
        along = weights(before, side, kernel)
        return np.einsum("yi,xj,ijd->yxd", along, along, values).reshape(side * side, -1)

    found = resampled(grid, cubic)
    lengths = resampled(np.linalg.norm(grid, axis=2, keepdims=True), linear)
    return found / np.linalg.norm(found, axis=1, keepdims=True) * lengths


@pytest.mark.parametrize(("before", "after"), [(4, 6), (2, 3), (14, 24), (6, 4), (1, 3)])
def test_positions_are_bicubic_and_as_long_as_their_neighbours(before, after):
    old = sized(before)
    found = fine_tuning.resize_positions(old, after)
    assert found.shape == (1, after * after, 12)
    np.testing.assert_allclose(found[0].numpy(), anew(old[0].numpy(), after), rtol=0, atol=1e-5)
    lengths = old.norm(dim=2)
    assert found.norm(dim=2).min() >= lengths.min() * (1 - 1e-5)
    assert found.norm(dim=2).max() <= lengths.max() * (1 + 1e-5)
    alike = fine_tuning.resize_positions(old / lengths[..., None] * 7, after)
    torch.testing.assert_close(alike.norm(dim=2), torch.full((1, after * after), 7.0))


def test_without_the_lengths_they_would_shrink():
    old = sized(14)
    plain = timm.layers.resample_abs_pos_embed(old, [24, 24], num_prefix_tokens=0, antialias=False)
    before, shrunk, kept = (
        float(found.norm(dim=2).mean()) for found in (old, plain, fine_tuning.resize_positions(old, 24))
    )
    assert shrunk < 0.9 * before
    assert kept == pytest.approx(before, rel=0.01)


@pytest.fixture(scope="module")
def mixing(views):
    policy = views().policy.model_dump(mode="json")
    return {"policy": {**policy, "mix": {}, "repeats": 2}, "evaluation": {}, "aug_seeds": 4}


@pytest.fixture(scope="module")
def mixed(world, tmp_path_factory, mixing):
    """A cache of mixed views, whose teacher looks at 24 pixels."""
    made = world.copy(tmp_path_factory.mktemp("start") / "world")
    made.add_cache("mixed", "all", mixing)
    return made


@pytest.fixture
def trained(mixed, mixing, command, tmp_path):
    """Trains a student at 32 pixels, or with `begin` one at 48 from it; its folder and facts."""

    def train(
        out: str, begin: object = None, settings: dict[str, object] | None = None, **knobs: object
    ) -> tuple[Path, dict[str, object]]:
        entry = HARD | ({"start": begin} if begin else {}) | knobs
        chosen = settings or (LARGE if begin else SMALL)
        arguments = command(mixed, cache="mixed", students={"x": entry}, settings=chosen, views=mixing, out=out)
        return tmp_path / out / "model", in_process(arguments)

    return train


@pytest.fixture
def small(trained):
    return trained("small")[0]


def named(path: Path, file: str = student_model.EMA) -> dict[str, str]:
    """An entry `start:`."""
    where = path if path.is_file() else path / file
    return {"path": str(path), "sha256": hashing.sha256_file(where)}


@pytest.fixture
def reference(small, recipe, student):
    """The student at the larger size with the smaller one's weights, put together without the code under test."""
    tensors = load_file(small / student_model.EMA)
    old = tensors["pos_embed"][0]
    assert len(old) == 2 + 4 * 4
    fitted = torch.from_numpy(anew(old[2:].numpy(), 6)).float()
    network = student_model.create_model(
        student_spec.Student("x", student("hard", seed=3), recipe(**LARGE)), len(CLASSES)
    )
    network.load_state_dict({**tensors, "pos_embed": torch.cat([old[:2], fitted])[None]})
    return network


def first_batch(mixed, settings: train_config.TrainConfig) -> batching.Batch:
    plan = mixed.plan("mixed", size=settings.size, batch_size=16, passes=1, seed=3)
    return next(iter(feed.batches(plan, workers=0)))


@pytest.fixture
def made(mixed, recipe, student, trainer_of):
    """A trainer at its first step; with `begin`, from those weights."""

    def make(settings: dict[str, object], begin: dict[str, str] | None = None) -> trainer.Trainer:
        parsed, shards = recipe(**settings), index.read(mixed.shards)
        length = schedule.plan_schedule(parsed, shards, store_reader.open(mixed.cache("mixed")).recipe.policy, 1)
        found = None
        if begin:
            found = fine_tuning.read(config.parse(begin, student_spec.StartFile, "start"), CLASSES, by_place=False)
        return trainer_of(parsed, student("hard", seed=3), length=length, initial=found)

    return make


@pytest.fixture
def batch(mixed, recipe):
    """The first one at the larger size."""
    return first_batch(mixed, recipe(**LARGE))


def test_the_logits_of_the_first_step_are_the_loaded_networks(batch, made, small, reference):
    student_trainer = made(LARGE, named(small))
    images = (batch.pixels.float() / 255 - 0.5) / 0.25
    for network in (student_trainer.network, student_trainer.ema.module):
        for one, two in zip(
            student_model.head_logits(network, images), student_model.head_logits(reference, images), strict=True
        ):
            assert one.shape == (16, 10)
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@pytest.fixture
def losses(batch, made, reference):
    """Of a first step from the weights of `reference`, and from initial ones."""
    loaded, initial = made(LARGE), made(LARGE)
    loaded.network.load_state_dict(reference.state_dict())
    return [float(one.train_step(batch, 0)["loss"]) for one in (loaded, initial)]


def test_a_run_begins_with_the_loss_of_the_loaded_network(losses, small, trained):
    """With distillation and mix, which fine-tuning in facebookresearch/deit refuses."""
    folder, _ = trained("large", named(small))
    first = (folder.parent / "curves/plots/metrics/loss.tsv").read_text().splitlines()[1]
    assert float(first.split("\t")[-1]) == pytest.approx(losses[0], abs=1e-5)
    assert losses[0] != pytest.approx(losses[1], abs=1e-2)


def test_one_draw_serves_teacher_and_students_of_all_sizes(mixed, recipe):
    """Rows are of the teacher's 24 pixels (`test_mix`); the same views at 32 and 48 belong to the same rows."""
    small, large = (first_batch(mixed, recipe(**settings)) for settings in (SMALL, LARGE))
    assert small.keys == large.keys
    assert torch.equal(small.rows["logits"], large.rows["logits"])
    assert torch.equal(small.mix.keep_B, large.mix.keep_B)
    policy, samples = store_reader.open(mixed.cache("mixed")).recipe.policy, mixed.samples()
    seen = 0
    for batch, size in ((small, 32), (large, 48)):
        assert batch.pixels.shape == (16, 3, size, size)
        for place in batch.weight.nonzero().flatten().tolist():
            sample, seed = samples[batch.keys[place]], place % 2
            alone = draw.view_params(policy, sample.key, seed)
            view = render.to_pixels(decode.rgb_pixels(sample.image, sample.key), alone, size)
            assert np.array_equal(batch.pixels[place].numpy(), view)
            seen += 1
    assert seen > 20


def test_a_run_is_of_the_weights_it_begins_with_wherever_they_lie(small, trained, tmp_path):
    _, first = trained("large", named(small))
    assert first["resumed_at_step"] == 0
    moved = shutil.copytree(small, tmp_path / "moved")
    folder, again = trained("large", named(moved))
    assert again["resumed_at_step"] == again["steps"]
    record = json.loads((folder / "record.json").read_text())
    assert record["start"] == {"sha256": named(small)["sha256"], "heads": "kept"}
    assert record["student"]["start"] == named(moved)
    assert trained("large", named(small / student_model.RAW))[1]["resumed_at_step"] == 0
    assert trained("large", None, LARGE)[1]["resumed_at_step"] == 0
    assert json.loads((folder / "record.json").read_text())["start"] is None


def test_at_the_same_size_the_very_weights_go_on(small, made):
    tensors = load_file(small / student_model.EMA)
    found = made(SMALL, named(small)).network.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


@pytest.mark.slow
def test_other_weights_than_those_named_are_one_line(mixed, mixing, small, command, tmp_path):
    before = named(small)
    shutil.copyfile(small / student_model.RAW, small / student_model.EMA)
    found = refusal(
        command(
            mixed, cache="mixed", students={"x": {**HARD, "start": before}}, settings=LARGE, views=mixing, out="large"
        )
    )
    assert found == (
        f"error: {small}/model.safetensors: start.sha256 must be {before['sha256']}. Got {named(small)['sha256']}. "
        "Write this one in params.yaml if these weights are meant; else restore the others: dvc checkout"
    )
    assert not (tmp_path / "large/scratch").exists()


def test_what_is_no_file_of_weights_is_refused(tmp_path, trained):
    at = {"path": str(tmp_path / "none"), "sha256": "0" * 64}
    with pytest.raises(errors.ConfigError, match=r"none: start\.path must be a student's folder or .* Train that stud"):
        trained("large", at)
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(errors.ConfigError, match=r"text: is not a file of tensors \(.*\)\. Save it as safetensors"):
        trained("large", named(tmp_path / "text"))
    with pytest.raises(errors.ConfigError, match=r"start\.sha256 is refused: string should match pattern"):
        trained("large", {**at, "sha256": "0" * 63})
    with pytest.raises(errors.ConfigError, match=r"start\.sha256 is missing"):
        trained("large", {"path": at["path"]})


OTHERS = {
    r"shape of cls_token must be \(1, 1, 64\)\. Got \(1, 1, 32\)": {"embed_dim": 64},
    r"lacks blocks\.2\.attn\.proj\.bias \(12 such tensors\)": {"depth": 3},
    r"has the unknown blocks\.1\.attn\.proj\.bias \(12 such tensors\)": {"depth": 1},
    r"shape of patch_embed\.proj\.weight must be \(32, 3, 16, 16\)\. Got \(32, 3, 8, 8\)": {"patch_size": 16},
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_model_is_refused(small, trained, message):
    settings = {**LARGE, "arguments": {**LARGE["arguments"], **OTHERS[message]}}
    with pytest.raises(errors.ConfigError, match=rf"model\.safetensors: {message}\. Start from a student of the same"):
        trained("large", named(small), settings)


@pytest.mark.parametrize("side", [None, (1, 17, 32), (1, 2, 32), (18, 32)])
def test_positions_that_are_no_square_are_refused(tmp_path, small, trained, side):
    tensors = load_file(small / student_model.EMA)
    if side:
        tensors["pos_embed"] = torch.zeros(side)
    else:
        del tensors["pos_embed"]
    save_file(tensors, tmp_path / "odd.safetensors")
    shape = re.escape(str(side))
    message = rf"shape of pos_embed must be \(1, 38, 32\)\. Got {shape}" if side else r"lacks pos_embed \(1 such"
    with pytest.raises(errors.ConfigError, match=message):
        trained("large", named(tmp_path / "odd.safetensors"))


@pytest.mark.parametrize("name", ["pos_embed", "head_dist.bias", "blocks.1.norm1.weight"])
@pytest.mark.parametrize("number", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_refused_before_a_step(tmp_path, small, trained, name, number):
    tensors = load_file(small / student_model.EMA)
    tensors[name].view(-1)[-1] = number
    save_file(tensors, tmp_path / "bad.safetensors")
    message = rf"bad\.safetensors: {name} must be finite throughout\. Got a number that is not\. Start from a student"
    with pytest.raises(errors.ConfigError, match=message):
        trained("large", named(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64])
@pytest.mark.parametrize("name", ["pos_embed", "head.bias"])
def test_weights_of_another_type_are_refused(tmp_path, small, trained, dtype, name):
    tensors = load_file(small / student_model.EMA)
    save_file({**tensors, name: tensors[name].to(dtype)}, tmp_path / "bad.safetensors")
    kind = str(dtype).removeprefix("torch.")
    message = rf"bad\.safetensors: type of {name} must be one of .*float32, float64\. Got {kind}\. Start from a student"
    with pytest.raises(errors.ConfigError, match=message):
        trained("large", named(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize(("token", "word"), [(False, "without"), (True, "with")])
def test_a_token_is_neither_made_up_nor_dropped(trained, token, word):
    folder, _ = trained("one", token=not token)
    message = f"start must be a student {word} a distillation token, as this one.* Set token: {str(not token).lower()}"
    with pytest.raises(errors.ConfigError, match=message):
        trained("large", named(folder), token=token)
    assert trained("large", named(folder), token=not token)[1]["resumed_at_step"] == 0


@pytest.fixture
def seven(small, tmp_path):
    """The weights of a student of seven classes."""
    tensors = load_file(small / student_model.EMA)
    for name in ("head", "head_dist"):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.zeros(7, 32), torch.zeros(7)
    save_file(tensors, tmp_path / "seven.safetensors")
    return tmp_path / "seven.safetensors"


def test_other_classes_get_heads_of_their_own(small, seven, made, trained, caplog):
    folder, _ = trained("large", named(seven))
    assert caplog.messages == [f"{seven}: has other classes, so that the heads begin with initial weights"]
    assert json.loads((folder / "record.json").read_text())["start"]["heads"] == "fresh"
    initial, kept = made(LARGE).network.state_dict(), load_file(small / student_model.EMA)
    for name, tensor in made(LARGE, named(seven)).network.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(tensor, (initial if name.startswith("head") else kept)[name])


@pytest.mark.slow
def test_all_ranks_begin_there_and_one_says_so(mixed, mixing, seven, command, tmp_path):
    settings = {**LARGE, "launcher": {"processes": 2}}
    students = {"x": {**HARD, "start": named(seven)}}
    stderr = end(
        start_run(command(mixed, cache="mixed", students=students, settings=settings, views=mixing, out="two"))
    )
    assert stderr.count("has other classes") == 1
    assert cost(tmp_path / "two")["ranks"] == 2
    alone = in_process(command(mixed, cache="mixed", students=students, settings=LARGE, views=mixing, out="one"))
    assert alone["resumed_at_step"] == 0
    one, two = (load_file(tmp_path / name / "model" / student_model.RAW) for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-4) for name in one)


@pytest.mark.parametrize("weights", [student_model.EMA, student_model.RAW])
def test_the_record_of_other_weights_is_refused(small, trained, weights):
    """Its class names would be taken for those of these weights."""
    other, _ = trained("one", token=False)
    shutil.copyfile(other / "record.json", small / "record.json")
    found = json.loads((small / "record.json").read_text())["weights_sha256"]
    wanted = hashing.sha256_file(small / weights)
    message = rf"weights_sha256 must be that of .*{weights}, {wanted}\. Got {found}\. Restore it, or remove it"
    with pytest.raises(errors.ConfigError, match=message):
        trained("large", named(small / weights))


def test_as_many_classes_of_other_names_are_others_unless_accepted(small, trained, caplog):
    path = small / "record.json"
    record = json.loads(path.read_text())
    record["cache"]["teacher"]["classes_sha256"] = "0" * 64
    reseal.change(path, cache=record["cache"])
    folder, _ = trained("large", named(small))
    assert len(caplog.messages) == 1
    assert json.loads((folder / "record.json").read_text())["start"]["heads"] == "fresh"
    trained("large", named(small), accept=["classes"])
    assert json.loads((folder / "record.json").read_text())["start"]["heads"] == "kept"
    assert len(caplog.messages) == 1
    for raw in (small / student_model.RAW, (small / student_model.RAW).parent):
        trained("large", named(raw))
        assert json.loads((folder / "record.json").read_text())["start"]["heads"] == "fresh"
    path.write_text("{}")
    with pytest.raises(errors.ConfigError, match=r"record\.json: digest is missing\. Restore it, or remove it"):
        trained("large", named(small))
    path.unlink()
    trained("large", named(small))
    assert json.loads((folder / "record.json").read_text())["start"]["heads"] == "kept"

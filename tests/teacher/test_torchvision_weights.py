"""torchvision's weights: fetched or found, proved by their name, and only where timm's network computes the same."""

import functools
import http.server
import threading

import pytest
import torch
import torchvision.models

from teachonce.core import errors, hashing
from teachonce.teacher import finetune_start, torchvision_weights

START = {"kind": "torchvision", "name": "resnet18"}


@pytest.fixture
def pair(finetuned):
    def settings(architecture: str, name: str, **more: str):
        start = {"kind": "torchvision", "name": name, **more}
        return finetuned(start=start).model_copy(update={"architecture": architecture})

    return settings


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torchvision's folder of downloads, and weights at an address of this machine: `(folder, tensors, file name)`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    served = tmp_path / "served"
    served.mkdir()
    tensors = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(tensors, served / "w.pth")
    path = (served / "w.pth").rename(served / f"resnet18-{hashing.sha256_file(served / 'w.pth')[:8]}.pth")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
        monkeypatch.setattr(entry, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
        yield tmp_path / "home/hub/checkpoints", tensors, path
        server.shutdown()


def refused(act) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(settings):
    return torchvision_weights.read(settings.weights.start, "x.yaml")


def test_they_are_fetched_once_and_become_the_networks(pair, hub):
    folder, tensors, path = hub
    settings = pair("resnet18", "resnet18")
    state = finetune_start.build_network(settings, settings.weights, 5, "x.yaml").state_dict()
    assert state["fc.weight"].shape == (5, 512)
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items() if not name.startswith("fc."))
    assert [each.name for each in folder.iterdir()] == [path.name]
    path.unlink()
    assert torch.equal(read(settings)["conv1.weight"], tensors["conv1.weight"])


def test_other_bytes_under_the_name_are_refused(pair, hub):
    folder, _, path = hub
    folder.mkdir(parents=True)
    (folder / path.name).write_bytes(b"other")
    text = refused(lambda: read(pair("resnet18", "resnet18")))
    assert f"{path.name}: sha256 must be {path.stem[-8:]}…, as its name says. Got d9298a10" in text
    assert text.endswith(f"Remove it: rm '{folder / path.name}'")
    (folder / path.name).unlink()
    path.write_bytes(b"cut off")
    assert "cannot be fetched (invalid hash value" in refused(lambda: read(pair("resnet18", "resnet18")))
    assert not any(folder.iterdir())


def test_an_address_that_does_not_answer_is_told_at_once(pair, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:9/resnet18-00000000.pth"
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
    text = refused(lambda: read(pair("resnet18", "resnet18")))
    assert text.startswith(f"x.yaml: weights.start.name: resnet18 is at {url}, which cannot be reached (")
    assert text.endswith(f"Connect this machine, or put the file into {tmp_path}/hub/checkpoints")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"name": "resnet81"},
            "name must be the name of a classifier in torchvision. Got resnet81. Did you mean ",
        ),
        ({"name": "resnet18", "version": "V3"}, "version must be one of IMAGENET1K_V1. Got V3. See torchvision"),
    ],
)
def test_a_name_that_torchvision_does_not_have(pair, changes, line):
    assert f"x.yaml: weights.start.{line}" in refused(lambda: read(pair("resnet18", **changes)))


@pytest.mark.parametrize(
    ("architecture", "name", "match"), [("resnet18", "resnet18", "name"), ("mobilenetv2_100", "mobilenet_v2", "order")]
)
def test_networks_that_compute_the_same_pair(pair, architecture, name, match):
    settings = pair(architecture, name)
    assert torchvision_weights.name_matching(settings.weights.start, settings, "x.yaml") == match


@pytest.mark.parametrize(
    ("architecture", "name", "reason"),
    [
        ("resnet34", "resnet18", "their layers are not of the same shapes"),
        ("mobilenetv3_large_100", "mobilenet_v3_large", "their layers are not of the same shapes"),
        # The same shapes in the same order, and another padding.
        ("tf_mobilenetv3_small_minimal_100", "mobilenet_v2", "their layers are not of the same shapes"),
        ("tf_efficientnet_b0", "efficientnet_b0", "with the same weights they answer otherwise"),
    ],
)
def test_networks_that_do_not_are_refused(pair, architecture, name, reason):
    settings = pair(architecture, name)
    text = refused(lambda: torchvision_weights.name_matching(settings.weights.start, settings, "x.yaml"))
    assert text == (
        f"x.yaml: weights.start.name must be a network that timm's {architecture} computes as well ({reason}). "
        f"Got {name}. Name another pair, or take a file: start: {{kind: checkpoint, …}}"
    )

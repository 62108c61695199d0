"""Students of two checkouts on the validation images of both: what they learnt, apart from how images are shown.

    python tests/bench/crossed_students.py BEFORE AFTER [--seeds 8] [--kind soft]

After `paired_students.py`, in the same two folders. Where renderers differ, each checkout shows its students other
validation images, and the images alone may decide a part of the difference. Printed: top-1 of the students of either
on the images of either, and on the same images the paired difference with its 95 % interval (Student's t over seeds).
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from paired_students import row
from safetensors.torch import load_file

RENDER = """
import sys
from pathlib import Path
import numpy as np
import yaml
from teachonce.shards import decode, index, sample_reader
from teachonce.views import draw, render
from teachonce.views.view_policy import Policy
shards, pixels, labels = index.read(Path("artifacts/shards")), [], []
params = yaml.safe_load(Path("params.yaml").read_text())
views = yaml.safe_load(Path(f"configs/views/{params['views']}.yaml").read_text())
plain = Policy(**views.get("evaluation", {}))
# Checkouts whose views Pillow renders take its image, later ones an array.
read = decode.rgb_pixels if hasattr(decode, "rgb_pixels") else decode.rgb
for shard in shards.index.of_split("val"):
    for sample in sample_reader.verified_samples(shard, shards.path(shard)):
        image, params = read(sample.image, sample.key), draw.view_params(plain, sample.key, 0)
        pixels.append(np.asarray(render.to_pixels(image, params, int(sys.argv[1]))))
        labels.append(sample.label)
np.savez(sys.stdout.buffer, pixels=np.stack(pixels), labels=np.array(labels))
"""
Images = dict[str, npt.NDArray[Any]]
"""`pixels` uint8 (N, 3, S, S), and `labels` (N,)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kind", default="soft", help="name of a student in params.yaml")
    args = parser.parse_args()
    sides = {"before": args.before.resolve(), "after": args.after.resolve()}
    students = {
        side: [folder / f"artifacts/students/{args.kind}-{seed}" for seed in range(args.seeds)]
        for side, folder in sides.items()
    }
    size = config_of(students["before"][0])["pretrained_cfg"]["input_size"][-1]
    images = {side: rendered(folder, size) for side, folder in sides.items()}
    gap = np.abs(images["before"]["pixels"].astype(int) - images["after"]["pixels"]).mean()
    print(f"the images differ by {gap:.2f} levels on average")
    for shown in sides:
        top1 = {side: [score(folder, images[shown]) for folder in students[side]] for side in sides}
        means = ", ".join(f"students of {side} {100 * statistics.mean(values):.2f}" for side, values in top1.items())
        print(f"images of {shown}: {means}")
        print(row(f"  {args.kind}", "both", top1["before"], top1["after"]))


def rendered(folder: Path, size: int) -> Images:
    """A checkout's validation images as it shows them."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'pipeline'}:{folder}"}
    command = [sys.executable, "-c", RENDER, str(size)]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(np.load(io.BytesIO(done.stdout)))


def score(folder: Path, images: Images) -> float:
    """Top-1 of a student, by the mean of its heads' logits."""
    config = config_of(folder)
    network = timm.create_model(config["architecture"], num_classes=config["num_classes"], **config["model_args"])
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.eval()
    mean, std = (torch.tensor(config["pretrained_cfg"][name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        views = (torch.from_numpy(images["pixels"]) / 255 - mean) / std
        logits = torch.cat([network(part) for part in views.split(256)])
    return float((logits.argmax(1).numpy() == images["labels"]).mean())


def config_of(folder: Path) -> dict[str, Any]:
    """What timm reads of a student."""
    return dict(json.loads((folder / "config.json").read_text("utf-8")))


if __name__ == "__main__":
    main()

"""A real teacher's logits of real photographs: those of four Debian packages and of scikit-learn, without drawings.

Photographs of the fit and of the measurement are apart: a basis must serve pictures that it has not seen.

Shapes: N views, C classes.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).parent))
import photos

from teachonce.core import hashing
from teachonce.format import schema
from teachonce.teacher import predictor, teacher_network
from teachonce.views import draw, render

PACKAGES = "plasma-workspace-wallpapers mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04"
MISSING = (
    f"skipped: photographs are missing. apt-get install --no-install-recommends {PACKAGES}; "
    "or apt-get download them, dpkg -x each into FOLDER, and --photos FOLDER/usr/share"
)
_PLASMA = (
    "Autumn",
    "BytheWater",
    "ColdRipple",
    "ColorfulCups",
    "DarkestHour",
    "EveningGlow",
    "FallenLeaf",
    "Grey",
    "Kite",
    "OneStandsOut",
    "Path",
    "Volna",
    "summer_1am",
)
_LOMIRI = (
    "Bridge",
    "Dragonfly",
    "Kleiber",
    "Picture_0B",
    "Picture_1A",
    "Wine",
    "aitzgorri",
    "free",
    "friends",
    "greentock",
    "life",
    "picosdeeuropa",
    "seeding",
    "sunset",
)
_PATTERNS = (
    *(f"wallpapers/{name}/contents/images/{size}.jpg" for name in _PLASMA for size in ("2560x1600", "5120x2880")),
    "backgrounds/mate/nature/*.jpg",
    *(f"backgrounds/{name}_by_*.jpg" for name in _LOMIRI),
)
_COUNT = len(_PLASMA) + 12 + len(_LOMIRI)
_FIT, _MEASURED = 4300, 1000
_BATCH = 50


@dataclass(frozen=True)
class Logits:
    """What the teacher said."""

    fit_NC: np.ndarray
    """Of 4,300 views."""
    measured_NC: np.ndarray
    """Of 1,000 views of other photographs."""
    keys: tuple[str, ...]
    """Of the latter."""
    canary: np.ndarray
    """Pixels of the first of them."""
    teacher: schema.Teacher
    """Who."""


def paths(roots: Sequence[Path]) -> list[Path]:
    """The photographs below the roots; none unless all of them are there."""
    files = [path for root in roots for pattern in _PATTERNS for path in sorted(root.glob(pattern))]
    return files if len(files) == _COUNT else []


def logits(files: Sequence[Path], scratch: Path) -> Logits:
    """Logits of views under DeiT's augmentation, kept in the scratch folder: they take minutes."""
    settings = photos.teacher()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = teacher_network.build_network(settings, len(photos.CLASSES))
        identity = teacher_network.save(folder / "teacher", network, settings, photos.CLASSES)
        device = teacher_network.default_device()
        teacher = predictor.Predictor(teacher_network.load(folder / "teacher", device), identity, device)
    sources = sorted([path.as_posix().partition("/usr/share/")[2] or path.name for path in files])
    digest = hashing.json_digest([sources, _FIT, _MEASURED, identity.model_dump(mode="json")])
    path = scratch / f"photographs-{digest}.npz"
    if not path.is_file():
        pictures = _pictures(files)
        parts = [pictures[place] for place in range(len(pictures)) if place % 4 == 3]
        measured_NC, keys, canary = _answers(teacher, parts, _MEASURED)
        fit_NC, _, _ = _answers(teacher, [each for each in pictures if each not in parts], _FIT)
        scratch.mkdir(parents=True, exist_ok=True)
        np.savez(path, fit=fit_NC, measured=measured_NC, keys=np.array(keys), canary=canary)
    with np.load(path) as stored:
        return Logits(stored["fit"], stored["measured"], tuple(stored["keys"].tolist()), stored["canary"], identity)


def _pictures(files: Sequence[Path]) -> list[tuple[str, Image.Image]]:
    pictures = [
        (f"sklearn-{place}", Image.fromarray(pixels)) for place, pixels in enumerate(load_sample_images().images)
    ]
    for path in files:
        image = Image.open(path)
        image.draft("RGB", (2560, 1600))
        name = path.parts[path.parts.index("contents") - 1] if "contents" in path.parts else path.stem
        pictures.append((name, image.convert("RGB")))
    return sorted(pictures, key=lambda pair: pair[0])


def _answers(
    teacher: predictor.Predictor, pictures: Sequence[tuple[str, Image.Image]], count: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Logits, keys, and the first view: the photographs in turn, another part of each every time."""
    policy = photos.views().policy
    answers, first, keys = [], [], []
    for start in range(0, count, _BATCH):
        views = []
        for number in range(start, min(start + _BATCH, count)):
            turn, place = divmod(number, len(pictures))
            name, photo = pictures[place]
            keys.append(f"{name}-{turn:04d}")
            views.append(render.to_pixels(_part(photo, name, turn), draw.view_params(policy, keys[-1], 0), 224))
        first = first or views[:1]
        answers.append(teacher.logits(np.stack(views)))
    return np.concatenate(answers), keys, first[0]


def _part(photo: Image.Image, name: str, number: int) -> np.ndarray:
    """A picture of 500 × 375 pixels, as those of ImageNet are: from 0.3 of the photograph's side to all of it."""
    uniform = np.random.Philox(key=hashing.seed64("bench tail", name, number)).random_raw(3) / 2**64
    width = min(photo.width, photo.height * 4 / 3) * (0.3 + 0.7 * uniform[0])
    height = width * 3 / 4
    x, y = uniform[1] * (photo.width - width), uniform[2] * (photo.height - height)
    box = (x, y, x + width, y + height)
    return np.asarray(photo.resize((500, 375), Image.Resampling.BICUBIC, box=box, reducing_gap=3))

"""Steps of a student: from rows, with a live teacher and without either, beside the same model in timm's own loop.

On batches that lie on the device, unless said otherwise, with DeiT's mix and three repeats, in bfloat16.

Shapes: B views, C classes, K kept classes, R coefficients.
"""

import functools
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import feed
import gpu_images
import numpy as np
import timm
import timm.data
import timm.loss
import timm.optim
import timm.utils
import torch
from gpu_scene import Scene, median, spread
from torch import Tensor

from teachonce.core import config
from teachonce.format import row_expansion, schema
from teachonce.student import batch_mix, batching, process_group, schedule, student_spec, train_config, trainer
from teachonce.teacher import predictor
from teachonce.tools.live import live_rows
from teachonce.views import mixing

ROOT = Path(__file__).parents[2]
CLASSES, K, RANK, REPEATS = 1000, 10, 256, 3
SOFT = student_spec.SoftSpec(model="bench", kind="soft", alpha=0.5, tau=3.0)
NONE = student_spec.PlainSpec(model="bench", kind="none", token=True)
BATCH = {"deit_tiny": 1008, "deit_small": 1008, "deit_base": 504, "deit_base_384": 24}
LENGTH = schedule.Schedule(1000, 100_000, 5000)


def settings(scene: Scene, name: str, **values: object) -> train_config.TrainConfig:
    """A student's recipe as it is configured, or a toy."""
    shipped = config.load(ROOT / f"configs/student/{name}.yaml", train_config.TrainConfig)
    values = {"batch_size": BATCH[name], **values}
    if scene.quick:
        arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
        values |= {"batch_size": 24, "lanes": 2, "size": 32, "arguments": arguments, "workers": 0, "buffer": 4}
    return train_config.TrainConfig.model_validate({**shipped.model_dump(), **values})


def batch(scene: Scene, recipe: train_config.TrainConfig, teacher_size: int) -> batching.Batch:
    """Noise, made-up rows and DeiT's mix: the time of a step does not care."""
    device, views, size = scene.device, recipe.batch_size, recipe.size
    random = np.random.Generator(np.random.Philox(key=views))
    policy = gpu_images.policy()
    drawn = [mixing.draw_params(policy.mix, f"{number}", 0) for number in range(views)]
    logits_BC = torch.from_numpy(3 * random.standard_normal((views, CLASSES), np.float32))
    logp_BK, class_id_BK = logits_BC.log_softmax(dim=1).topk(K, dim=1)

    def pixels(side: int) -> Tensor:
        return torch.from_numpy(random.integers(0, 256, (views, 3, side, side), np.uint8))

    packed = batching.Batch(
        keys=tuple(f"{number}" for number in range(views)),
        pixels=pixels(size),
        label=torch.from_numpy(random.integers(0, CLASSES, views)),
        weight=torch.ones(views),
        rows={
            "class_id": class_id_BK,
            "logp": logp_BK.half(),
            "tail": torch.from_numpy(random.integers(0, 8, (views, RANK), np.uint8)),
        },
        count=batching.ViewCount(views, views),
        mix=batch_mix.from_draws(drawn, REPEATS),
        teacher_pixels=pixels(teacher_size),
    )
    return packed.to(device)


class Bench:
    """One student in training, with rows, without, and with a live teacher."""

    def __init__(self, scene: Scene, recipe: train_config.TrainConfig, *, run_ahead: int | None = None) -> None:
        self.recipe, self._number = recipe, 0
        random = np.random.Generator(np.random.Philox(key=1))
        mean_C, components_RC = (random.standard_normal(shape, np.float32) for shape in (CLASSES, (RANK, CLASSES)))
        sketch = row_expansion.TailDecoder(torch.from_numpy(mean_C), torch.from_numpy(components_RC) / 16)
        self.trainer = trainer.Trainer(
            student_spec.Student("bench", SOFT, recipe),
            num_classes=CLASSES,
            length=LENGTH,
            world=replace(process_group.single_process(), device=scene.device),
            tail=sketch,
            run_ahead=run_ahead,
        )

    def step(self, some: batching.Batch, spec: student_spec.StudentSpec, *, deterministic: bool = True) -> None:
        recipe = self.recipe if deterministic else self.recipe.model_copy(update={"deterministic": False})
        self.trainer.student = student_spec.Student("bench", spec, recipe)
        self.trainer.train_step(some, self._number)
        self._number += 1


class Timm:
    """The same step as a training script of timm takes it: its mixup, loss, AdamW and average."""

    def __init__(self, scene: Scene, recipe: train_config.TrainConfig) -> None:
        self._device = scene.device
        self._network = timm.create_model(
            recipe.distilled_architecture, num_classes=CLASSES, drop_path_rate=recipe.drop_path, **recipe.arguments
        ).to(scene.device)
        self._network.set_distilled_training(True)
        self._optimizer = timm.optim.create_optimizer_v2(
            self._network,
            opt="adamw",
            lr=1e-4,
            weight_decay=0.05,
            **({"fused": True} if scene.device.type == "cuda" else {}),
        )
        self._ema = timm.utils.ModelEmaV3(self._network, decay=0.99996, use_warmup=True)
        self._forward = (
            torch.compile(self._network, dynamic=False) if recipe.compile and not scene.quick else self._network
        )
        self._mixup = timm.data.Mixup(
            mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES, mode="batch"
        )
        self._loss = timm.loss.SoftTargetCrossEntropy()
        self._mean, self._std = (
            torch.tensor(value, device=scene.device).view(1, 3, 1, 1) * 255 for value in (recipe.mean, recipe.std)
        )
        self._number = 0

    def step(self, some: batching.Batch) -> None:
        self._network.train()
        # As timm's prefetching loader does.
        images = some.pixels.float().sub_(self._mean).div_(self._std)
        images, targets = self._mixup(images, some.label)
        with torch.autocast(self._device.type, torch.bfloat16):
            class_BC, _ = self._forward(images)
            loss = self._loss(class_BC, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._ema.update(self._network, self._number)
        self._number += 1


def measure(scene: Scene) -> None:
    teacher = gpu_images.teacher(scene, "regnety_160", "bfloat16")
    cells = [
        ("deit_tiny", False),
        ("deit_tiny", True),
        ("deit_base", False),
        ("deit_base", True),
        ("deit_small", False),
        ("fed", False),
        ("deit_small", True),
    ]
    for name, compiled in [*cells[:2], cells[5]] if scene.quick else cells:
        label = f"{name}, {'compiled' if compiled else 'eager'}"
        if compiled and scene.device.type == "cpu" and not shutil.which("g++"):
            scene.skip(label, "no C++ compiler, which compiling for a CPU needs")
        elif scene.left_s() < (1 if scene.quick else 35 if compiled else 10):
            scene.skip(label, "no time left")
        elif name == "fed":
            fed(scene)
        else:
            resident(scene, label, settings(scene, name, compile=compiled), teacher)


def resident(
    scene: Scene, label: str, recipe: train_config.TrainConfig, teacher: tuple[predictor.Predictor, schema.Teacher]
) -> None:
    """Steps on one batch that lies on the device."""
    some = batch(scene, recipe, 32 if scene.quick else 224)
    # Compiling takes a minute for each model: timm's once.
    works = works_of(scene, recipe, some, teacher, other=not recipe.compile or "deit_tiny" in label)
    first_s = scene.seconds(lambda: [work() for work in works.values()])
    repeat = 1 if scene.quick else 2
    many = {name: functools.partial(again, work, repeat) for name, work in works.items()}
    rounds = list(scene.rounds(many, 1 if scene.quick else 4))
    if not rounds:
        scene.skip(label, "no time left")
        return
    ms = {name: 1e3 * median(rounds, name) / repeat for name in works}
    views = recipe.batch_size
    scene.note(
        f"{label}: a step of {views} views from the cache",
        ms["cached"],
        "ms",
        views_s=round(1e3 * views / ms["cached"]),
        first_steps_s=round(first_s, 1),
        others_ms={name: round(value, 2) for name, value in ms.items() if name != "cached"},
    )
    note = functools.partial(ratio, scene, rounds)
    note(f"{label}: cached / plain", lambda seconds: seconds["cached"] / seconds["plain"], most=1.01)
    note(
        f"{label}: live / cached, of (student + teacher) / student",
        lambda seconds: seconds["live"] / seconds["cached"] / (1 + seconds["teacher"] / seconds["plain"]),
        least=0.99,
    )
    note(f"{label}: live / cached", lambda seconds: seconds["live"] / seconds["cached"])
    if "timm" in works:
        note(f"{label}: timm's own step / plain", lambda seconds: seconds["timm"] / seconds["plain"], least=0.98)
    if not recipe.compile:
        note(
            f"{label}: timm's own step / plain as kernels come",
            lambda seconds: seconds["timm"] / seconds["free"],
            least=0.98,
        )
        note(f"{label}: plain in one order / as kernels come", lambda seconds: seconds["plain"] / seconds["free"])
        note(
            f"{label}: the host waits for each step / reads later",
            lambda seconds: seconds["asking"] / seconds["cached"],
        )
        note(f"{label}: as on a CPU / gated and fused", lambda seconds: seconds["as on a CPU"] / seconds["cached"])
        repeated(scene, label, recipe, some)


def works_of(
    scene: Scene,
    recipe: train_config.TrainConfig,
    some: batching.Batch,
    teacher: tuple[predictor.Predictor, schema.Teacher],
    *,
    other: bool,
) -> dict[str, Callable[[], object]]:
    """What is timed in turn."""
    bench = Bench(scene, recipe)
    network, identity = teacher
    of_teacher = schema.Recipe(teacher=identity, policy=gpu_images.policy(), k="all", tail="none")
    ask = live_rows.LiveRows("none", of_teacher, aug_seeds=3, teacher=network).answer
    works: dict[str, Callable[[], object]] = {
        "plain": lambda: bench.step(some, NONE),
        "cached": lambda: bench.step(some, SOFT),
        "live": lambda: bench.step(ask(some), SOFT),
        "teacher": lambda: ask(some),
    }
    if other:
        timms = Timm(scene, recipe)
        works["timm"] = lambda: timms.step(some)
    if not recipe.compile:
        # The other sides of what a CPU cannot show: any order; a host that waits for each step; all as on a CPU, with
        # torch's plain AdamW and timm's average.
        plain = Bench(scene, recipe, run_ahead=0)
        works["free"] = lambda: bench.step(some, NONE, deterministic=False)
        works["asking"] = lambda: (bench.step(some, SOFT), scene.wait())
        works["as on a CPU"] = lambda: plain.step(some, SOFT)
    return works


def repeated(scene: Scene, label: str, recipe: train_config.TrainConfig, some: batching.Batch) -> None:
    """Two runs that should be one, at this size and, once, where attention takes more turns."""
    cells = [(label, recipe, some)]
    if "deit_base" in label:
        larger = settings(scene, "deit_base_384", batch_size=24, lanes=2, workers=0)
        cells.append(("deit_base_384, eager", larger, batch(scene, larger, 32)))
    for name, each, views in cells:
        for how, deterministic in (("as kernels come", False), ("in one order", True)):
            same = equal_bits(scene, each, views, deterministic=deterministic)
            scene.note(f"{name}: two runs of three steps, {how}", same)


def equal_bits(scene: Scene, recipe: train_config.TrainConfig, some: batching.Batch, *, deterministic: bool) -> str:
    """Whether two runs from the same seed end with the same weights."""
    ended = []
    for _ in range(2):
        bench = Bench(scene, recipe)
        again(functools.partial(bench.step, some, SOFT, deterministic=deterministic), 3)
        ended.append([weights.detach() for weights in bench.trainer.network.parameters()])
    unlike = sum(not torch.equal(*pair) for pair in zip(*ended, strict=True))
    return f"{unlike} of {len(ended[0])} tensors differ" if unlike else "the same bits"


def ratio(scene: Scene, rounds: list[dict[str, float]], name: str, of, **goal: float) -> None:
    """The median of a ratio over the rounds."""
    values = [of(seconds) for seconds in rounds]
    scene.note(name, statistics.median(values), **goal, rounds=spread(values))


def again(work, count: int) -> None:
    for _ in range(count):
        work()


def with_tail(batch: batching.Batch) -> batching.Batch:
    """The store of the loader's section has none; the student wants one."""
    tail = torch.zeros((len(batch.keys), RANK), dtype=torch.uint8, device=batch.pixels.device)
    return replace(batch, rows={**batch.rows, "tail": tail})


def fed(scene: Scene) -> None:
    """The loader's steps with a cache, and without distillation and cache."""
    recipe = settings(scene, "deit_tiny")
    plan = gpu_images.plan(scene, recipe.size)
    workers = 0 if scene.quick else gpu_images.most_workers(scene)
    recipe = recipe.model_copy(update={"batch_size": plan.batch_size, "lanes": plan.lanes, "workers": workers})
    bare = replace(plan, cache=feed.Live(gpu_images.policy(), recipe.size))
    bench = Bench(scene, recipe)
    streams: dict[str, Iterator[batching.Batch]] = {}
    for name, each in (("plain", bare), ("cached", plan)):
        streams[name] = map(with_tail, feed.batches(each, workers=workers, device=scene.device))
        bench.step(next(streams[name]), SOFT if name == "cached" else NONE)
    steps = 2 if scene.quick else 8
    works = {
        "plain": lambda: again(lambda: bench.step(next(streams["plain"]), NONE), steps),
        "cached": lambda: again(lambda: bench.step(next(streams["cached"]), SOFT), steps),
    }
    rounds = list(scene.rounds(works, 1 if scene.quick else 3))
    rate = recipe.batch_size * steps / median(rounds, "cached") if rounds else 0.0
    scene.note(
        f"deit_tiny, eager, fed by {workers} loader processes from the cache", rate, "views/s", batch=recipe.batch_size
    )
    if rounds:
        ratio(scene, rounds, "fed: cached / plain", lambda seconds: seconds["cached"] / seconds["plain"])

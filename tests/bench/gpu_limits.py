"""What a GPU waits for: how much of a step it idles, at DeiT's batch, and what comes after the longest waits."""

from collections import Counter

import feed
import gpu_images
import gpu_student
import torch
from gpu_scene import Scene

from teachonce.student.train_config import TrainConfig

_STEPS = 4
_SHORT_US = 5.0
"""Between two kernels in turn; anything longer is a wait."""


def measure(scene: Scene) -> None:
    recipe = gpu_student.settings(scene, "deit_tiny")
    some = gpu_student.batch(scene, recipe, 32)
    bench = gpu_student.Bench(scene, recipe)
    idle(scene, "on a resident batch", lambda: bench.step(some, gpu_student.SOFT))
    if scene.left_s() < (1 if scene.quick else 10):
        scene.skip("fed by the loader", "no time left")
        return
    stream = fed_batches(scene, recipe)
    idle(scene, "fed by the loader", lambda: bench.step(next(stream), gpu_student.SOFT))


def fed_batches(scene: Scene, recipe: TrainConfig):
    """Batches as `train` gets them, from as many processes as there are cores for."""
    plan = gpu_images.plan(scene, recipe.size)
    workers = 0 if scene.quick else gpu_images.most_workers(scene)
    return map(gpu_student.with_tail, feed.batches(plan, workers=workers, device=scene.device))


def idle(scene: Scene, label: str, step) -> None:
    """The share of some steps in which the device had nothing to do."""
    for _ in range(3):
        step()
    scene.wait()
    if scene.device.type == "cpu":
        scene.skip(f"idle, {label}", "a CPU has no kernels in a profile")
        step()
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        for _ in range(_STEPS):
            step()
        scene.wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    copies_us = sum(end - start for start, end, name in spans if "memcpy" in name.lower())
    waits: Counter[str] = Counter()
    until, busy_us = spans[0][0], 0.0
    for start, end, name in spans:
        if start - until > _SHORT_US:
            waits[name[:60]] += start - until
        busy_us += max(0.0, end - max(start, until))
        until = max(until, end)
    whole_us = until - spans[0][0]
    longest = ", ".join(f"{name} {time / whole_us:.1%}" for name, time in waits.most_common(3))
    scene.note(
        f"idle, {label}",
        100 * (1 - busy_us / whole_us),
        "%",
        ms_a_step=round(whole_us / 1e3 / _STEPS, 2),
        kernels_a_step=len(spans) // _STEPS,
        copies=f"{copies_us / whole_us:.2%}",
        waits_longest_before=longest,
    )

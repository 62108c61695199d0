"""A rank of its own under torchrun: a step as `train` takes it, and what its profile shows of the ranks' exchange.

torchrun --standalone --nproc-per-node=1 tests/gpu/one_rank.py SHARDS STORE SETTINGS
"""

import json
import sys
from pathlib import Path

import torch

from teachonce.student import loader, process_group, row_source, schedule, student_spec, train_config, trainer


def main(shards: str, store: str, settings: str) -> None:
    recipe = train_config.TrainConfig.model_validate_json(Path(settings).read_text(encoding="utf-8"))
    student = student_spec.Student("x", student_spec.HardSpec(model="x", kind="hard", alpha=0.5, seed=3), recipe)
    source = row_source.CachedRows(shards, store, aug_seeds=4)
    with process_group.join_ranks() as world:
        student_trainer = trainer.Trainer(student, num_classes=10, length=schedule.Schedule(8, 32, 0), world=world)
        stream = loader.iter_batches(source, student, 2, world=world)
        student_trainer.train_step(next(stream), 0)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if world.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            student_trainer.train_step(next(stream), 1)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
        names = sorted({event.key for event in profile.key_averages() if "all" in event.key.lower()})
        print(json.dumps({"size": world.size, "heads": type(student_trainer.forward_pass).__name__, "names": names}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A rank of its own under torchrun: a step as `train` takes it, and what its profile shows of the ranks' exchange.

torchrun --standalone --nproc-per-node=1 tests/gpu/one_rank.py SHARDS STORE SETTINGS
"""

import json
import sys
from pathlib import Path

import torch

from teachonce.student import loader, process_group, schedule, student_config, trainer, training_loop


def main(shards: str, store: str, settings: str) -> None:
    recipe = student_config.StudentConfig.model_validate_json(Path(settings).read_text(encoding="utf-8"))
    student = student_config.Student(model="x", kind="hard", alpha=0.5)
    plan = loader.Plan(
        shards=shards,
        cache=store,
        size=recipe.size,
        batch_size=recipe.batch_size,
        lanes=recipe.lanes,
        buffer=recipe.buffer,
        passes=2,
        aug_seeds=4,
        seed=3,
        accept=(),
    )
    with process_group.joined() as team:
        who = trainer.make(recipe, student, num_classes=10, length=schedule.Schedule(8, 32, 0), team=team)
        stream = loader.batches(plan, workers=0, rank=team.rank, ranks=team.size, device=team.device)
        training_loop.step(who, next(stream), recipe, student, 0)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if team.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            training_loop.step(who, next(stream), recipe, student, 1)
            if team.device.type == "cuda":
                torch.cuda.synchronize()
        names = sorted({event.key for event in profile.key_averages() if "all" in event.key.lower()})
        print(json.dumps({"size": team.size, "heads": type(who.heads).__name__, "names": names}))


if __name__ == "__main__":
    main(*sys.argv[1:])

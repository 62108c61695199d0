"""Training processes that work as one: the ranks that torchrun started, or this process alone.

Ranks agree on the CPU, over gloo, so that agreeing does not wait for a GPU's work; gradients go over NCCL there.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from teachonce.core import disk_errors, errors


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ranks, and what they do together: each method but `is_main` is one that all ranks call."""

    rank: int
    """Which one it is."""
    size: int
    """How many there are."""
    device: torch.device
    """Where this one computes."""
    launched: bool = False
    """Whether a launcher started it: then gradients go through the ranks' group, even where it is of one."""

    @property
    def is_main(self) -> bool:
        """Whether it is the rank that writes."""
        return self.rank == 0

    def all_sum(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over all ranks, in float64, so that counts and bits of digests add up exactly."""
        if self.size == 1:
            return [float(value) for value in values]
        # On the CPU, whatever the device: a sum on a GPU would wait for all the work that was given to it.
        sums = torch.tensor(values, dtype=torch.float64)
        with self.peer_errors():
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def raise_first(self, error: errors.TeachonceError | None) -> None:
        """Go on where no rank has an error; else end all of them.

        Raises:
            TeachonceError: on the first rank, whose progress bar it would else run into; that of the lowest rank with
                one.
            SystemExit: quietly, with code 0, on the others.
        """
        if not self.all_sum([error is not None])[0]:
            return
        if self.launched:
            by_rank: list[errors.TeachonceError | None] = [None] * self.size
            with self.peer_errors():
                dist.all_gather_object(by_rank, error)
            # While all are here. Later some would have left, and leaving the group waits for all.
            dist.destroy_process_group()
            error = next(each for each in by_rank if each)
        # One line of one rank: torchrun would take any other code for a death, and start all of them again.
        if error is None or not self.is_main:
            raise SystemExit(0)
        raise error

    @contextlib.contextmanager
    def sync_errors(self) -> Iterator[None]:
        """Work in which a refusal on one rank is the end of all.

        Without it the others would wait in their next sum for a rank that is gone.
        """
        refusal: errors.TeachonceError | None = None
        try:
            with disk_errors.explain_write_errors():
                yield
        except errors.TeachonceError as error:
            refusal = error
        self.raise_first(refusal)

    @contextlib.contextmanager
    def peer_errors(self) -> Iterator[None]:
        """Work that needs the other ranks.

        Raises:
            PeerError: one of them is gone.
        """
        try:
            yield
        except RuntimeError as error:
            message = str(error).lower()
            # A lost connection is a plain RuntimeError of gloo; everything else is this rank's own.
            is_lost = isinstance(error, dist.DistError) or "gloo" in message or "connection" in message
            if self.size == 1 or not is_lost:
                raise
            reason = str(error).splitlines()[0]
            raise errors.PeerError(
                f"rank {self.rank}",
                f"another rank is gone ({reason})",
                "Run the same command again to go on from the last checkpoint",
            ) from error


def single_process() -> World:
    """This process alone, on the first GPU where there is one."""
    return World(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def join_ranks() -> Iterator[World]:
    """The ranks that torchrun started, or this process alone.

    Raises:
        ConfigError: there are fewer GPUs than ranks on this machine.
        PeerError: a rank went away.
    """
    if not dist.is_torchelastic_launched():
        yield single_process()
        return
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), _device(), launched=True)
    with world.peer_errors():
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_store(), rank=world.rank, world_size=world.size)
    yield world
    # Only where all is well: others may be gone, and a farewell would wait for them.
    dist.destroy_process_group()


def _store() -> Store:
    """Where ranks find each other; torchrun keeps it over a restart, and with it the addresses of the dead."""
    store: Store = next(rendezvous("env://"))[0]
    if os.environ["GROUP_WORLD_SIZE"] != "1":
        # Each machine counts restarts for itself.
        return store
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if ranks > torch.cuda.device_count():
        # Too few GPUs is one refusal, not one of each rank: the first says it, the others end quietly.
        if local:
            raise SystemExit(0)
        most = f"at most {torch.cuda.device_count()}, the GPUs of this machine"
        raise errors.ConfigError.for_value("student", "launcher.processes", most, ranks, "Start fewer")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)

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
class Team:
    """This process among the ranks."""

    rank: int
    """Which one it is."""
    size: int
    """How many there are."""
    device: torch.device
    """Where this one computes."""
    launched: bool = False
    """Whether a launcher started it: then gradients go through the ranks' group, even where it is of one."""

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks."""
        if self.size == 1:
            return [float(value) for value in values]
        sent = torch.tensor(values, dtype=torch.float64)
        with self.peers():
            dist.all_reduce(sent)
        return [float(value) for value in sent]

    def agree(self, error: errors.TeachonceError | None) -> None:
        """Go on where no rank has an error; else end all of them.

        Raises:
            TeachonceError: on the first rank, whose progress bar it would else run into; that of the lowest rank with
                one.
            SystemExit: quietly, with code 0, on the others.
        """
        if not self.sums([error is not None])[0]:
            return
        if self.launched:
            told: list[errors.TeachonceError | None] = [None] * self.size
            with self.peers():
                dist.all_gather_object(told, error)
            dist.destroy_process_group()
            error = next(one for one in told if one)
        if error is None or not self.first:
            raise SystemExit(0)
        raise error

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work in which a refusal on one rank is the end of all; each rank must come by here."""
        refused: errors.TeachonceError | None = None
        try:
            with disk_errors.explain_write_errors():
                yield
        except errors.TeachonceError as error:
            refused = error
        self.agree(refused)

    @contextlib.contextmanager
    def peers(self) -> Iterator[None]:
        """Work that needs the other ranks.

        Raises:
            PeerError: one of them is gone.
        """
        try:
            yield
        except RuntimeError as error:
            told = str(error).lower()
            # A lost connection is a plain RuntimeError of gloo; everything else is this rank's own.
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in told or "connection" in told):
                raise
            reason = str(error).splitlines()[0]
            raise errors.PeerError(
                f"rank {self.rank}",
                f"another rank is gone ({reason})",
                "Run the same command again to go on from the last checkpoint",
            ) from error


def alone() -> Team:
    """This process, without others."""
    return Team(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The ranks that torchrun started, or this process alone.

    Raises:
        ConfigError: there are fewer GPUs than ranks on this machine.
        PeerError: a rank went away.
    """
    if not dist.is_torchelastic_launched():
        yield alone()
        return
    team = Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), _device(), launched=True)
    with team.peers():
        backend = "cpu:gloo,cuda:nccl" if team.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_store(), rank=team.rank, world_size=team.size)
    yield team
    # Only where all is well: others may be gone, and a farewell would wait for them.
    dist.destroy_process_group()


def _store() -> Store:
    """Where ranks find each other; torchrun keeps it over a restart, and with it the addresses of the dead."""
    found: Store = next(rendezvous("env://"))[0]
    if os.environ["GROUP_WORLD_SIZE"] != "1":
        # Each machine counts restarts for itself.
        return found
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", found)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if ranks > torch.cuda.device_count():
        if local:
            raise SystemExit(0)
        most = f"at most {torch.cuda.device_count()}, the GPUs of this machine"
        raise errors.ConfigError.for_value("student", "launcher.processes", most, ranks, "Start fewer")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)

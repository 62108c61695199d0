"""Stage `train`: a DeiT from shards and cached logits; no teacher in sight."""

from teachonce.student import torchrun, train_command

if __name__ == "__main__":
    torchrun.run_rank(train_command.main)

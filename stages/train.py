"""Stage `train`: a DeiT from shards and cached logits; no teacher in sight."""

from teachonce.student import train_command

if __name__ == "__main__":
    train_command.run()

"""`train_live`: a DeiT with the teacher in the loop and no cache: the baseline, outside the graph of `dvc repro`."""

from teachonce.tools.live import train_live_command

if __name__ == "__main__":
    train_live_command.run()

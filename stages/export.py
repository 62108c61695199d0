"""Command `export`: hand over a student as a folder for timm, a hub and ONNX Runtime, with a model card."""

from teachonce.core import command
from teachonce.tools.export import export_command

if __name__ == "__main__":
    command.run(export_command.main)

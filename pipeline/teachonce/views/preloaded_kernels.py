"""Imported by a fork server: the kernels are loaded there once, and whatever it forks has them.

Each process that renders would otherwise load numba and the machine code by itself, in a second of its core.
"""

from teachonce.views import kernel_choice

kernel_choice.chosen_kernels()

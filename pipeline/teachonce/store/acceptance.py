"""Which refusals of a cache can be set aside; apart from what refuses, so that a configuration needs no torch."""

from typing import Literal

Acceptable = Literal["policy", "classes", "aug_seeds", "tars", "keys", "view_drift"]
"""What a consumer may go on with in spite of a refusal, on purpose:

- policy: views are drawn as the cache was made, not as configured;
- classes: other names for as many classes, paired by position;
- aug_seeds: fewer than asked, used in turn;
- tars: those without rows are left out;
- keys: rows are joined by their place, and views drawn by the cache's keys;
- view_drift: canaries do not replay.
"""

"""Which views the teacher sees: `configs/views/*.yaml`."""

import pydantic

from teachonce.core import config
from teachonce.views import view_policy


class ViewsConfig(config.Model):
    """The augmentation of training, the crop of evaluation, and how many views of each image are cached."""

    policy: view_policy.CurrentPolicy
    """Transforms of the training views."""
    evaluation: view_policy.CurrentPolicy
    """Validation views; nothing in it is drawn at random."""
    aug_seeds: int = pydantic.Field(ge=1)
    """Views of each training image, a multiple of `policy.repeats`. Pass p over the images uses the p-th block of
    `repeats` seeds, and begins again behind the last one."""

    @pydantic.model_validator(mode="after")
    def _whole_blocks(self) -> "ViewsConfig":
        if self.aug_seeds % self.policy.repeats:
            raise ValueError(f"aug_seeds must be a multiple of policy.repeats, {self.policy.repeats}")
        return self

    @pydantic.field_validator("evaluation")
    @classmethod
    def _without_chance(cls, value: view_policy.Policy) -> view_policy.Policy:
        # Compared with a policy of these two alone: a transform that joins `Policy` later is refused here by itself.
        if value != view_policy.Policy(center=value.center, interpolation=value.interpolation):
            raise ValueError("may set center and interpolation only: validation views are the same every time")
        return value

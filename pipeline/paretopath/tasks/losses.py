"""What the losses of tasks with classes have in common."""

import math

from paretopath.errors import InvalidValueError


def require_loss_settings(
    label_smoothing: float, distillation_weight: float, distillation_temperature: float
) -> None:
    """Refuses settings that a cross-entropy with distillation can't have.

    Raises:
        InvalidValueError: one is outside its range.
    """
    if not 0 <= label_smoothing < 1:
        raise InvalidValueError(f"label_smoothing must be in [0, 1), but got {label_smoothing}")
    if not 0 <= distillation_weight <= 1:
        raise InvalidValueError(
            f"distillation_weight must be in [0, 1], but got {distillation_weight}"
        )
    if not 0 < distillation_temperature < math.inf:
        raise InvalidValueError(
            f"distillation_temperature must be over 0 and finite, "
            f"but got {distillation_temperature}"
        )

"""What each decision alone does to accuracy and cost: which ones to touch first."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from paretopath.errors import RunDirectoryError
from paretopath.files import CHECKSUM, is_altered, sealed, write_atomically
from paretopath.paths import Value


@dataclass(frozen=True)
class Effect:
    """One decision at one value, all others at their fullest.

    Attributes:
        decision: its name.
        value: that it takes.
        accuracy: of that path, in [0, 1].
        lost: accuracy of the full path less this one's; negative where it is better.
        lost_error: standard error of ``lost``.
        saved: share of the full path's cost; negative where it costs more.
    """

    decision: str
    value: Value
    accuracy: float
    lost: float
    lost_error: float
    saved: float

    @property
    def price(self) -> float:
        """Accuracy lost for the whole of the cost, were it saved at this rate; infinite where
        nothing is saved.
        """
        return self.lost / self.saved if self.saved > 0 else float("inf")


@dataclass(frozen=True)
class Sensitivity:
    """The effects of all decisions.

    Attributes:
        metric: the accuracy's name.
        cost: what is saved: ``energy_mj`` …
        accuracy: of the full path.
        samples: images that the accuracies rest on.
        effects: in the order of the decisions, each decision's values from cheapest to fullest.
    """

    metric: str
    cost: str
    accuracy: float
    samples: int
    effects: tuple[Effect, ...]

    def ranked(self) -> list[Effect]:
        """The effects that save something, those that lose least for it first."""
        saving = [effect for effect in self.effects if effect.saved > 0]
        return sorted(saving, key=lambda effect: (effect.price, -effect.saved))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        effects = tuple(Effect(**effect) for effect in content["effects"])
        return cls(**{**content, "effects": effects})

    def save(self, file: Path) -> None:
        """Writes it as JSON."""
        write_atomically(file, json.dumps(sealed(self.to_json()), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Self:
        """What :meth:`save` wrote.

        Raises:
            RunDirectoryError: the file was altered.
        """
        content = json.loads(file.read_text(encoding="utf-8"))
        if is_altered(content):
            raise RunDirectoryError(
                f"{file} is refused: it was altered, its SHA-256 is not the one in it"
            )
        content.pop(CHECKSUM, None)
        return cls.from_json(content)

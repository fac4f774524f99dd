"""What a user can ask of a calibration, whatever it is for."""

from dataclasses import dataclass

from quantrs.errors import UsageError

__all__ = ["CalibrationOptions"]

MIN_LENGTH = 8
"""Tokens of the shortest sequence."""


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Texts, how much of them, and how it is used."""

    text: str | None = None
    """Path of a text, of JSON lines or of a NumPy array of token ids, exactly as given; None for the text that comes with the package."""
    sequences: int | None = None
    """How many; None leaves it to the method."""
    length: int = 512
    """Tokens of a sequence."""
    seed: int = 0
    """Of the choice of sequences."""
    sequential: bool = True
    """Later blocks see what the quantized earlier ones give."""
    memory_budget: int = 1 << 30
    """Bytes of hidden states that are held in memory; more of them go to a file."""
    min_coverage: float | None = None
    """Part of the experts, 0 to 1, that must have seen enough tokens; None reports those that have not."""

    def __post_init__(self) -> None:
        if self.length < MIN_LENGTH:
            raise UsageError(f"--calib-length: found {self.length}, expected at least {MIN_LENGTH} tokens")
        if self.sequences is not None and self.sequences < 1:
            raise UsageError(f"--calib-sequences: found {self.sequences}, expected 1 or more")
        if self.min_coverage is not None and not 0 <= self.min_coverage <= 1:
            raise UsageError(f"--min-coverage: found {self.min_coverage}, expected a number from 0 to 1")

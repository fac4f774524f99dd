"""Devices and their memory: a table of data, ``hardware.toml`` beside this file, where the sources are."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from quantrs.errors import UsageError

__all__ = ["Device", "devices", "find_devices", "usable_bytes"]

Kind = Literal["ram", "vram"]


@dataclass(frozen=True)
class Device:
    """One device with one size of memory."""

    name: str
    kind: Kind
    """``vram`` for memory of a graphics card, ``ram`` for memory that the whole machine shares."""
    memory_bytes: int
    source: str
    """Address of the vendor's page."""


@cache
def devices() -> tuple[Device, ...]:
    """All of the table, in its order."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    table = tomllib.loads(resources.files("quantrs").joinpath("hardware.toml").read_text(encoding="utf-8"))
    return tuple(
        Device(row["name"], "vram" if row["kind"] == "gpu" else "ram", row["gib"] * 2**30, source["url"])
        for source in table["source"]
        for row in source["devices"]
    )


def find_devices(text: str) -> tuple[Device, ...]:
    """Those whose names contain all words of `text`, in any letter case.

    Raises
    ------
    UsageError
        There are none; the message lists the table.

    Examples
    --------
    >>> [device.name for device in find_devices("rtx 4090")]
    ['GeForce RTX 4090']
    """
    words = text.lower().split()
    found = tuple(device for device in devices() if all(word in device.name.lower() for word in words))
    if not found:
        raise UsageError(f"--hardware: found {text!r}, expected words of one of {', '.join(device.name for device in devices())}")
    return found


def usable_bytes(memory_bytes: int, kind: Kind) -> int:
    """What a model may take: an eighth of a machine's memory is left to its system, a sixteenth of a graphics card's to its driver.

    Examples
    --------
    >>> usable_bytes(16, "ram"), usable_bytes(16, "vram")
    (14, 15)
    """
    return memory_bytes - memory_bytes // (8 if kind == "ram" else 16)

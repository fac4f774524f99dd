"""``quantrs doctor``: what this installation runs on."""

import os
import platform
import sys
from importlib import metadata

from quantrs import _native
from quantrs.text import table

__all__ = ["diagnose", "to_text"]

_PACKAGES = ("numpy", "ml-dtypes", "rich")


def diagnose() -> dict[str, object]:
    """A JSON value: ``level`` in use, ``levels`` of this CPU, ``threads``, ``cpus``, ``platform``, ``versions``.

    Raises
    ------
    InputError
        ``QUANTRS_LEVEL`` is unknown, or this CPU lacks it.
    """
    versions = {"quantrs": _native.__version__, "python": platform.python_version()}
    return {
        "level": _native.level(),
        "levels": _native.levels(),
        "threads": _native.default_threads(),
        "cpus": os.cpu_count(),
        "platform": f"{sys.platform} {platform.machine()}",
        "module": _native.__file__,
        "versions": versions | {name: _version(name) for name in _PACKAGES},
    }


def to_text(found: dict[str, object]) -> str:
    """The same for people."""
    rows = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += [[str(key), str(version or "not installed")] for key, version in value.items()]
        else:
            rows.append([name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)])
    return table(["what", "found"], rows)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

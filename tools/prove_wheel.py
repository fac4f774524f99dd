"""Install a wheel into a clean virtual environment that has no Rust toolchain on its PATH, and use it.

``python tools/prove_wheel.py WHEEL`` fails if the wheel needs a compiler, misses a dependency, or cannot quantize.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

USE = """
import importlib.util, numpy as np, quantrs as qr
assert importlib.util.find_spec("torch") is None
w = np.linspace(-1, 1, 4 * 512, dtype=np.float32).reshape(4, 512)
q = qr.quantize(w, "q4_k")
assert q.nbytes == 4 * 2 * 144 and np.abs(q.dequantize() - w).max() < 0.1
print("quantrs", qr.__version__, "quantizes:", q)
"""


def main(wheel: Path) -> int:
    """Create the environment, install, run the command and the library."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        bin_folder = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        # Only the environment's own programs: neither cargo nor a C compiler can be found.
        env = {**os.environ, "PATH": str(bin_folder), "VIRTUAL_ENV": folder}
        found = [name for name in ("cargo", "rustc", "cc", "gcc") if shutil.which(name, path=env["PATH"])]
        if found:
            print(f"{bin_folder}: {found} lies in the clean environment", file=sys.stderr)
            return 1
        python = str(bin_folder / "python")
        for command in (
            [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", str(wheel.resolve())],
            [str(bin_folder / "quantrs"), "--version"],
            [str(bin_folder / "quantrs"), "doctor"],
            [python, "-c", USE],
        ):
            subprocess.run(command, env=env, check=True, cwd=folder)
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.2f} MB, works without a Rust toolchain")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Record the headers that llama-quantize writes for many option sets, to be copied by ``make_golden.py``.

``python tools/make_quantize_headers.py LLAMA_QUANTIZE OUT.json`` runs the tool over the models and cases of
``tests/quantize_cases.py``. Per case it notes the name and size of every file written, and the SHA-256 of the bytes before
the tensor data. The place where the data starts is read from the file with gguf-py's rules, not with quantrs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from quantize_cases import cases, write_models

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def header_bytes(data: bytes) -> bytes:
    """Everything before the tensor data of a GGUF v3 file with the default alignment."""
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    at = 24

    def skip_string(at: int) -> int:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]

    def skip_value(at: int, value_type: int) -> int:
        if value_type == 8:
            return skip_string(at)
        if value_type != 9:
            return at + _SCALAR_BYTES[value_type]
        item_type, count = struct.unpack_from("<IQ", data, at)
        at += 12
        for _ in range(count):
            at = skip_value(at, item_type)
        return at

    for _ in range(n_keys):
        at = skip_string(at)
        at = skip_value(at + 4, struct.unpack_from("<I", data, at)[0])
    for _ in range(n_tensors):
        at = skip_string(at)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
    return data[: -(-at // 32) * 32]


def arguments(options: dict[str, object]) -> list[str]:
    """The tool's arguments for keyword arguments of `QuantizeOptions`, without source, destination and type."""
    out: list[str] = []
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        if key == "to" or value is False:
            continue
        if value is True:
            out.append(flag)
        elif key == "tensor_types":
            assert isinstance(value, list)
            for pattern, type_name in value:
                out += ["--tensor-type", f"{pattern}={type_name}"]
        elif key == "prune_layers":
            assert isinstance(value, list)
            out += [flag, ",".join(map(str, value))]
        elif isinstance(value, list):
            for item in value:
                out += [flag, str(item)]
        else:
            out += [flag, str(value)]
    return out


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description="Record the headers that llama-quantize writes.")
    parser.add_argument("tool", type=Path, metavar="LLAMA_QUANTIZE")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    wanted = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        for source, options in cases():
            argv = [str(wanted.tool.resolve()), *arguments(options), source, "out.gguf", str(options["to"])]
            subprocess.run(argv, cwd=folder, check=True, capture_output=True)
            files = {}
            for path in sorted(folder.glob("out*.gguf")):
                data = path.read_bytes()
                files[path.name] = [len(data), hashlib.sha256(header_bytes(data)).hexdigest()]
                path.unlink()
            rows.append({"source": source, "options": options, "files": files})
    text = ",\n".join(json.dumps(row) for row in rows)
    wanted.out.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(f"{wanted.out}: {len(rows)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Quantize a GGUF model from Python, with progress of one's own and a look at what got worse.

    python examples/quantize_model.py MODEL.gguf OUTPUT.gguf [Q4_K_M]

Run it again after an interruption: it goes on where it was.
"""

import sys

import quantrs as qr
from quantrs.progress import Watcher


class Percent(Watcher):
    """Prints whole percents as they come."""

    def start(self, total_bytes: int) -> None:
        """Remember how much there is to do."""
        self.total_bytes = total_bytes
        self.shown = -1

    def update(self, done_bytes: int) -> None:
        """Called some ten times a second."""
        percent = 100 * done_bytes // max(1, self.total_bytes)
        if percent > self.shown:
            self.shown = percent
            print(f"{percent} %", file=sys.stderr)


def main(source: str, output: str, scheme: str = "Q4_K_M") -> None:
    """Quantize, then print the tensor groups that lost most."""
    report = qr.quantize_checkpoint(source, output, scheme=scheme, resume=True, measure=True, watcher=Percent())
    print(f"{output}: {report.file_bytes} bytes, {report.bits_per_weight:.2f} bits per weight, {report.seconds:.1f} s")
    for group in sorted(report.errors, key=lambda e: e.sqnr_db)[:3]:
        print(f"  {group.group}: {group.sqnr_db:.1f} dB as {', '.join(group.types)}")


if __name__ == "__main__":
    main(*sys.argv[1:])

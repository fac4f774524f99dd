"""How much each expert of a mixture has seen: a router sends rare experts few tokens, and statistics of few tokens say little.

In an importance matrix an expert that saw none weighs all columns alike, as with ``llama-imatrix``; one that saw few has what it saw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantrs.errors import InputError

__all__ = ["FEW_TOKENS", "Coverage", "Uncovered"]

FEW_TOKENS = 64
"""An expert that saw fewer is not covered."""


@dataclass(frozen=True)
class Uncovered:
    """An expert that has seen too little."""

    tensor: str
    expert: int
    tokens: int


@dataclass(frozen=True)
class Coverage:
    """Which experts have seen enough tokens."""

    n_experts: int
    """Over all tensors that hold several."""
    uncovered: tuple[Uncovered, ...]
    least: int
    """Tokens that are enough."""

    @staticmethod
    def of(counts: Mapping[str, Sequence[int]], *, least: int = FEW_TOKENS) -> "Coverage":
        """From the tokens that each expert of each tensor saw; tensors with one count have no experts.

        Examples
        --------
        >>> found = Coverage.of({"blk.0.ffn_up_exps.weight": [900, 3], "blk.0.attn_q.weight": [903]})
        >>> found.part, found.uncovered
        (0.5, (Uncovered(tensor='blk.0.ffn_up_exps.weight', expert=1, tokens=3),))
        """
        experts = [(name, expert, n) for name, seen in counts.items() if len(seen) > 1 for expert, n in enumerate(seen)]
        return Coverage(len(experts), tuple(Uncovered(*row) for row in experts if row[2] < least), least)

    @property
    def part(self) -> float:
        """Covered ones, 0 to 1."""
        return 1.0 - len(self.uncovered) / self.n_experts if self.n_experts else 1.0

    def notices(self, *, most: int = 8) -> list[str]:
        """What a user should know, a line for each tensor; those after `most` are counted."""
        by_tensor: dict[str, list[Uncovered]] = {}
        for row in self.uncovered:
            by_tensor.setdefault(row.tensor, []).append(row)
        lines = []
        for name, rows in list(by_tensor.items())[:most]:
            shown = ", ".join(f"{row.expert} ({row.tokens})" for row in rows[:most]) + (", ..." if len(rows) > most else "")
            lines.append(f"{name}: {len(rows)} experts saw fewer than {self.least} tokens: {shown}")
        if len(by_tensor) > most:
            lines.append(f"{len(by_tensor) - most} more tensors have experts that saw fewer than {self.least} tokens")
        return lines

    def check(self, wanted: float | None) -> None:
        """Refuse what is too little.

        Raises
        ------
        InputError
            A smaller part than `wanted` is covered.
        """
        if wanted is not None and self.part < wanted:
            first = self.uncovered[0]
            raise InputError(
                f"--min-coverage: {self.part:.1%} of the experts saw {self.least} tokens or more, expected {wanted:.1%}; the first of "
                f"{len(self.uncovered)} others is expert {first.expert} of {first.tensor} with {first.tokens}; give more text"
            )

    def to_json(self) -> dict[str, object]:
        """A JSON value."""
        uncovered = [{"tensor": row.tensor, "expert": row.expert, "tokens": row.tokens} for row in self.uncovered]
        return {"coverage": self.part, "experts": self.n_experts, "enough_tokens": self.least, "uncovered": uncovered}

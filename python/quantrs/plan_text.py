"""A plan for people."""

from typing import TYPE_CHECKING

from quantrs.text import human_bytes, table

if TYPE_CHECKING:
    from quantrs.plan import Plan

__all__ = ["plan_summary", "plan_text"]


def plan_text(plan: "Plan") -> str:
    """One row per tensor, then what the types add up to, then the size of the file."""
    rows = [[t.name, " x ".join(map(str, t.shape)), t.source_type, t.target_type, t.why, str(t.nbytes)] for t in plan.tensors]
    return "\n".join([table(["tensor", "shape", "from", "to", "why", "bytes"], rows, right="5"), "", plan_summary(plan)])


def plan_summary(plan: "Plan") -> str:
    """What the types add up to, and the size of the file."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for t in plan.tensors:
        groups.setdefault((t.source_type, t.target_type), []).append((t.source_bytes, t.nbytes))
    rows = [
        [source, target, str(len(sizes)), human_bytes(sum(s for s, _ in sizes)), human_bytes(sum(s for _, s in sizes))]
        for (source, target), sizes in groups.items()
    ]
    files = f" in {len(plan.files)} files" if len(plan.files) > 1 else ""
    return "\n".join(
        [
            table(["from", "to", "tensors", "before", "after"], rows, right="234"),
            f"{len(plan.tensors)} tensors, {plan.file_type}: {human_bytes(plan.source_bytes)} -> "
            f"{human_bytes(plan.file_bytes)} ({plan.file_bytes} bytes{files})",
        ]
    )

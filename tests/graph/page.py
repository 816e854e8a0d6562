"""The tables of docs/placement.md: every rule of every policy, as the code has it.

``PYTHONPATH=. python -P -m tests.graph.page`` writes them anew.
"""

from collections.abc import Iterable
from pathlib import Path

from quantlab.graph.followers import FOLLOWERS
from quantlab.graph.placement import POLICIES, Named
from quantlab.graph.policy_conservative import CAUTION
from quantlab.graph.policy_openvino import MISSING, VECTOR
from quantlab.graph.sites import SUBGRAPH

PAGE = Path(__file__).parents[2] / "docs" / "placement.md"
BEGIN, END = "<!-- rules: begin -->", "<!-- rules: end -->"


def tables() -> str:
    """Return the tables in Markdown."""
    parts: list[tuple[str, Iterable[Named]]] = [
        ("`tensorrt`: the first rule that speaks for a node decides", POLICIES["tensorrt"].rules),
        (
            "`openvino`: before those of `tensorrt`, the last in place of `narrow-product`",
            (*MISSING, VECTOR),
        ),
        ("`conservative`: before those of `tensorrt`", CAUTION),
        ("`onnxruntime`: rules of its own", POLICIES["onnxruntime"].rules),
        ("Nodes without Q/DQ of their own, under every policy", (*FOLLOWERS, SUBGRAPH)),
    ]
    return "\n\n".join(f"### {title}\n\n{_table(rules)}" for title, rules in parts)


def _table(rules: Iterable[Named]) -> str:
    rows = [f"| `{rule.name}` | {rule.reason} | {rule.source} |" for rule in rules]
    return "\n".join(["| rule | because | source |", "|---|---|---|", *rows])


def page(text: str) -> str:
    """Return a page with the tables between its marks replaced."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))

"""Draws the costs of the policies above their table in policies.md, when mkdocs builds the site.

The figures come from the table alone, so a new measurement changes both. `docs/reference.py` has the other pages.
"""

import re
from typing import Any

from mkdocs.structure.pages import Page

HEADING = "### The paper's six workloads on four GPUs, power limit at its maximum"
POLICIES = ("default", "zeus", "gp-ucb", "floor")
RECURRENCES = ("20", "50", "100")
LEFT, RIGHT, BAR, GAP, WIDTH = 90, 620, 16, 14, 680
HIGHEST = 1.5


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put the plot below the heading of its table."""
    if page.file.src_uri != "policies.md":
        return markdown
    if markdown.count(HEADING) != 1:
        raise ValueError(f"docs/policies.md has no longer the heading {HEADING!r}, below which the plot belongs")
    before, heading, after = markdown.partition(HEADING)
    return f"{before}{heading}\n\n{_plot(after)}\n{after}"


def _plot(table: str) -> str:
    rows = {policy: _costs(table, policy) for policy in POLICIES}
    bars, top = [], 20
    for column, recurrences in enumerate(RECURRENCES):
        bars.append(f'<text x="0" y="{top}" font-weight="bold">After {recurrences} recurrences</text>')
        for policy, costs in rows.items():
            top += BAR + 4
            width = max(1.0, (costs[column] - 1) / (HIGHEST - 1) * (RIGHT - LEFT))
            bars.append(
                f'<text x="0" y="{top}">{policy}</text>'
                f'<rect class="bar" x="{LEFT}" y="{top - BAR + 4}" width="{width:.0f}" height="{BAR - 2}" />'
                f'<text x="{LEFT + width + 6:.0f}" y="{top}">{costs[column]:.3f}</text>'
            )
        top += BAR + GAP
    text = "Mean cost of each policy, divided by that of the clairvoyant. A bar begins at 1. Shorter is better."
    return (
        f'<figure class="plot"><svg viewBox="0 0 {WIDTH} {top - BAR}" role="img" aria-label="{text}">'
        f"{''.join(bars)}</svg><figcaption>{text} The table has the same figures.</figcaption></figure>\n"
    )


def _costs(table: str, policy: str) -> list[float]:
    row = re.search(rf"^\| {policy} \| (.*) \|$", table, re.MULTILINE)
    if row is None:
        raise ValueError(f"the first table below {HEADING!r} has no row for {policy}")
    return [float(cell.split()[0]) for cell in row[1].split(" | ")[: len(RECURRENCES)]]

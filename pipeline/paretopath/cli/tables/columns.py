"""Tables that fit a screen: where it is too narrow, the columns that matter least stay out."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_GAP = 2  # between columns
ANY_WIDTH = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header; may have two lines.
        cells: from top to bottom, each as many lines as it likes.
        rank: those of the highest rank stay out first; of rank 0, never.
        style: rich's.
        is_text: at the left, where numbers are at the right.
    """

    title: str
    cells: Sequence[str]
    rank: int = 0
    style: str = ""
    is_text: bool = False

    @property
    def width(self) -> int:
        """Of its widest line."""
        texts = (Text.from_markup(text).plain for text in (self.title, *self.cells))
        return max(cell_len(line) for text in texts for line in lines(text))


def lines(text: str) -> list[str]:
    """The lines of a cell; an empty one has one."""
    return text.splitlines() or [""]


def table_of(
    columns: Sequence[Column], *, width: int = ANY_WIDTH, title: str | None = None
) -> Table:
    """A table in which nothing is cut; what does not fit is named below it.

    Args:
        columns: from left to right.
        width: of the screen.
        title: above it.
    """
    shown, left_out = list(columns), []
    while sum(column.width + _GAP for column in shown) - _GAP > width:
        highest = max(column.rank for column in shown)
        if highest == 0:
            break
        left_out += [column for column in shown if column.rank == highest]
        shown = [column for column in shown if column.rank != highest]
    named = (c for c in columns if c in left_out and c.title not in ("", "%"))
    names = [" ".join(lines(c.title)) for c in named]
    caption = f"wider terminals show {', '.join(names)} too" if names else None
    table = Table(
        box=None,
        header_style="bold",
        pad_edge=False,
        title=title,
        caption=caption,
        caption_justify="left",
    )
    for column in shown:
        side = "left" if column.is_text else "right"
        table.add_column(column.title, style=column.style, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*cells)
    return table

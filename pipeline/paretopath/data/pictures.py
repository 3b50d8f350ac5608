"""The pictures of a table's column: one decoding for every source, upright."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from paretopath.errors import DataError


class PictureColumn:
    """The pictures of one column of a `datasets.Dataset`, decoded one by one.

    Files' bytes, files by name and what a picture column of `datasets` holds all go through the
    decoder of `datasets`, which turns a photograph as its EXIF orientation says.

    Args:
        table: its rows.
        column: of pictures, of their files' bytes or names, or of arrays.
        folder: where file names start.
        split: whose rows these are, for errors.
    """

    def __init__(self, table: Any, column: str, *, folder: str, split: str) -> None:
        import datasets

        self.column = column
        self.table = _undecoded(table.select_columns([column]), column)
        self.folder = folder
        self.split = split
        self._decode = datasets.Image().decode_example

    def __len__(self) -> int:
        return len(self.table)

    @property
    def files(self) -> Sequence[str]:
        """The pictures' files, where the column names them; empty elsewhere."""
        rows = self.table[:][self.column] if self._names_files else []
        return [str(Path(self.folder, row)) for row in rows]

    @property
    def _names_files(self) -> bool:
        return getattr(self.table.features[self.column], "dtype", "") in ("string", "large_string")

    def read(self, index: int, convert: Callable[[Any], Tensor]) -> Tensor:
        """What ``convert`` makes of one picture (PIL's, or an array).

        Raises:
            DataError: it can't be read or converted; says which.
        """
        value = self.table[index][self.column]
        try:
            return convert(self._decode(self._file(value)))
        # OSError: PIL's of a broken picture too, as are SyntaxError (PNG) and ValueError (TIFF)
        except (DataError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self.describe(index)}: {error}") from error

    def describe(self, index: int) -> str:
        """Which picture it is, for errors: its row, and its file where that has a name."""
        value = self._file(self.table[index][self.column])
        name = value.get("path") if isinstance(value, dict) else None
        row = f"image {index} of column {self.column!r} in split {self.split!r}"
        return f"{row} ({name})" if name else row

    def _file(self, value: Any) -> Any:
        """A picture's file as `datasets` stores it; anything else as it is."""
        if isinstance(value, str):
            return {"path": str(Path(self.folder, value)), "bytes": None}
        return value


def _undecoded(table: Any, column: str) -> Any:
    """Pictures stay files until one is read, whether the table says that they are pictures or not:
    so that an error can name the file.
    """
    import datasets

    feature = table.features[column]
    is_file = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    is_bytes = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    if is_file or is_bytes or isinstance(feature, datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table

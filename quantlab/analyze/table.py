"""The rows of an analysis as CSV."""

import csv
import io
from dataclasses import fields
from pathlib import Path

from quantlab.files import write
from quantlab.findings import Analysis, Sensitivity


def write_csv(path: Path, analysis: Analysis) -> Path:
    """Write every row, ranked, with a header; numbers in full, what is not there left empty.

    Raises:
        OutputError: it cannot be written.
    """
    columns = [column.name for column in fields(Sensitivity)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, column) for column in columns] for row in analysis.rows)
    write(path, text.getvalue().encode())
    return path

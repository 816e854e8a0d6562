"""The process of a cell, in the tool's own environment: quantizes and writes what it cost.

python -m benchmarks.accuracy.child REQUEST.json
"""

import json
import sys
from pathlib import Path

from benchmarks.accuracy.calls import CALLS
from benchmarks.accuracy.request import Request
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.peers.child import measured


def main(path: Path) -> None:
    """Quantize, and write the cost beside the request."""
    request = Request.read(path)
    setting = SETTINGS[request.setting]
    _, cost = measured(CALLS[setting.tool](request, setting.options))
    (Path(request.folder) / "cost.json").write_text(json.dumps(cost))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Print the JSON Schema of report.json, as ``reports/report.schema.json`` holds it."""

import sys

from quantlab.reports.jsonfile import schema_text

if __name__ == "__main__":
    sys.stdout.write(schema_text())

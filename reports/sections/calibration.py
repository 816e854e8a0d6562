"""How the thresholds came about, what it cost, and what they belong to."""

from quantlab.records import Report
from quantlab.reports import formats
from quantlab.reports.blocks import Facts, Section


def section(report: Report) -> Section:
    """Return the facts of the calibration."""
    found = report.calibration
    facts = [
        ("Method", found.method),
        ("Samples", f"{formats.count(found.samples)}, in batches of {found.batch}"),
        ("Tensors", formats.count(found.tensors)),
        ("Time", formats.seconds(found.seconds)),
        ("of that in the model", _inference(found.inference_seconds, found.seconds)),
        ("Peak memory", formats.size(found.peak_rss_bytes)),
        ("Model, SHA-256", found.model_hash),
        ("Samples, SHA-256", found.data_hash),
    ]
    return Section("Calibration", (Facts("How the thresholds came about", tuple(facts)),))


def _inference(inference: float, total: float) -> str:
    told = formats.seconds(inference)
    return f"{told} ({formats.share(inference / total)})" if total > 0 else told

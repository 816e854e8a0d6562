#!/usr/bin/env bash
# Build the wheel, install it into an empty environment, and use it from outside the checkout.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$work"/dist/quantlab-*.whl
cd "$work"

# Modules of ours must not be found under another project's name.
"$work/venv/bin/python" - <<'EOF'
import importlib.util
for name in ("calibrators", "datasets", "reports", "tests", "benchmarks"):
    assert importlib.util.find_spec(name) is None, f"the wheel installs a top-level {name}"
import quantlab.calibrators, quantlab.datasets, quantlab.reports
EOF

cp -r "$root/examples/fashion_mnist" data
cat > data/small.yaml <<'EOF'
model: resnet.onnx
calibration:
  dataset: &data
    kind: fashion_mnist
    images: calib-images-idx3-ubyte.gz
    labels: calib-labels-idx1-ubyte.gz
    mean: 0.2860
    std: 0.3530
  samples: 64
engines: {backend: openvino}
evaluation: {dataset: *data, samples: 64, metrics: [top1]}
benchmark: {batches: [1], seconds: 0.2, rounds: 2}
output: ../run
EOF
"$work/venv/bin/quantlab" run data/small.yaml --quiet
for file in report.html report.md report.json calibration.cache calibration.json int8.onnx; do
  test -s "run/$file" || { echo "the wheel's run wrote no $file"; exit 1; }
done
"$work/venv/bin/quantlab" cache verify run/calibration.cache run/prepared.onnx
echo "the wheel works outside the checkout"

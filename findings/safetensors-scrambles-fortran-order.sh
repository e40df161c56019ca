#!/usr/bin/env bash
# safetensors 0.8.0 gives NumPy arrays in Fortran order back scrambled.
#
# Versions:  safetensors 0.8.0 and 0.7.0, numpy 2.4.6, scipy 1.17.1
# Behaviour: `safetensors.numpy.save` 0.8.0 writes memory as it lies under the shape the array shows. Arrays in
#            column order, such as a transpose or the result of `scipy.linalg.qr`, load with the right shape and
#            type and their values in other places. 0.7.0 kept them.
# Seen:      transpose and Q of a QR: equal after 0.7.0, not after 0.8.0; a copy by np.ascontiguousarray is
#            equal in both.
# So:        Weights that are saved transposed load without error and are wrong.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import subprocess
import sys

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

ROUND_TRIP = """
import numpy as np, scipy.linalg
from safetensors.numpy import load, save
a = np.random.default_rng(0).standard_normal((4, 3))
q = scipy.linalg.qr(a)[0]
def kept(x):
    y = load(save({"x": x}))["x"]
    assert y.shape == x.shape and sorted(y.ravel()) == sorted(x.ravel())
    return bool(np.array_equal(x, y))
print([kept(a), kept(a.T), kept(q), kept(np.ascontiguousarray(a.T))])
"""

for version, known in {"0.7.0": [True, True, True, True], "0.8.0": [True, False, False, True]}.items():
    pip = [sys.executable, "-m", "pip", "install", "--quiet", f"safetensors=={version}"]
    subprocess.run(pip, check=True)
    seen = subprocess.run([sys.executable, "-c", ROUND_TRIP], check=True, capture_output=True, text=True).stdout
    expect(f"{version}: array, transpose, Q, copy of the transpose kept", seen.strip(), str(known))
EOF

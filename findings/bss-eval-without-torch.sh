#!/usr/bin/env bash
# fast_bss_eval 0.1.4 declares NumPy and SciPy, and takes NumPy arrays: sdr of two such works where PyTorch is not installed,
# si_sdr raises AttributeError, "type object 'torch' has no attribute 'si_sdr'": a stand-in for the missing module is looked
# up before the kind of the arrays is.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 fast_bss_eval==0.1.4
cd "$scratch"
venv/bin/python - <<'PYTHON'
import fast_bss_eval
import numpy as np

generator = np.random.default_rng(0)
reference = generator.standard_normal((2, 16000))
estimate = reference + 0.1 * generator.standard_normal((2, 16000))
value = fast_bss_eval.sdr(reference, estimate).mean()
try:
    said = f"{fast_bss_eval.si_sdr(reference, estimate).mean():.2f} dB"
except AttributeError as error:
    said = f"AttributeError: {error}"
print(f"fast_bss_eval 0.1.4 without torch: sdr {value:.2f} dB; si_sdr {said}")
assert value > 15
assert said.startswith("AttributeError: type object 'torch'")
PYTHON

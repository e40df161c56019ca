#!/usr/bin/env bash
# soxr turns digital silence into noise when the samples are int16.
#
# Versions:  soxr 1.1.0, numpy 2.4.6
# Behaviour: `soxr.resample` of int16 adds dither, also to samples that are all zero, in every quality; there is
#            no argument to leave it off. The noise is the same at each call. Zeros in float32 stay zero.
# Seen:      one second of int16 zeros, 16 to 48 kHz: values -1, 0 and 1 (23 % of them not 0); float32: all 0.
# So:        A test for silence by "all samples are 0" works or not by the type of the samples before
#            resampling.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soxr==1.1.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import soxr

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

silence = np.zeros(16000, np.int16)
for quality in "QQ", "LQ", "MQ", "HQ", "VHQ":
    y = soxr.resample(silence, 16000, 48000, quality=quality)
    print(f"{quality}: {np.mean(y != 0):.2f} of the samples are not 0")
    expect(f"{quality} int16, values", np.unique(y).tolist(), [-1, 0, 1])
    again = soxr.resample(silence, 16000, 48000, quality=quality)
    expect(f"{quality} int16, the same at the second call", np.array_equal(y, again), True)
    y = soxr.resample(silence.astype(np.float32), 16000, 48000, quality=quality)
    expect(f"{quality} float32, values", np.unique(y).tolist(), [0.0])
EOF

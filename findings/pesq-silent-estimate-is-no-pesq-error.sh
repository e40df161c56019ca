#!/usr/bin/env bash
# What pesq says to silence depends on which of the two is silent, and "return" is not "raise".
#
# Versions:  pesq 0.0.4, numpy 2.4.6, scipy 1.17.1 (pesq is built by pip: needs a C compiler)
# Behaviour: A silent reference raises NoUtterancesError, a PesqError; a silent estimate raises ValueError,
#            which is none. With on_error=RETURN_VALUES, which by its README makes an error return -1, the first
#            returns -7 and the second nan.
# Seen:      raise: NoUtterancesError and ValueError (cannot convert float NaN to integer); return: -7 and nan.
# So:        `except PesqError` misses a silent estimate, and a mean over "returned values" takes in -7 or
#            becomes nan.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 pesq==0.0.4
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
from pesq import PesqError, pesq

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

time = np.arange(48000) / 16000
speech = 0.05 * sum(np.cos(2 * np.pi * 120 * k * time) / k for k in range(1, 30)) * np.clip(np.sin(13 * time), 0, 1)
silence = np.zeros_like(speech)

def score(reference, estimate, on_error):
    try:
        return str(pesq(16000, reference, estimate, "wb", on_error=on_error))
    except (PesqError, ValueError) as error:
        return f"{type(error).__name__}, a PesqError: {isinstance(error, PesqError)}"

print("speech against itself:", score(speech, speech, PesqError.RAISE_EXCEPTION))
RAISE, RETURN = PesqError.RAISE_EXCEPTION, PesqError.RETURN_VALUES
expect("silent reference, raise", score(silence, speech, RAISE), "NoUtterancesError, a PesqError: True")
expect("silent estimate, raise", score(speech, silence, RAISE), "ValueError, a PesqError: False")
expect("silent reference, return", score(silence, speech, RETURN), "-7")
expect("silent estimate, return", score(speech, silence, RETURN), "nan")
EOF

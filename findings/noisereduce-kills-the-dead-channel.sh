#!/usr/bin/env bash
# noisereduce returns NaN for a channel that is silent, but not if the samples are int16.
#
# Versions:  noisereduce 3.0.3, numpy 2.4.6, scipy 1.17.1
# Behaviour: The default (non-stationary) mode divides by a smoothed spectrum, which is zero where a channel is
#            digital silence: each sample of that channel comes back NaN. stationary=True gives zeros, and so
#            does int16, in which NaN becomes 0. A silent stretch in a channel that has sound elsewhere is no
#            harm.
# Seen:      stereo with one dead channel: 0 % and 100 % NaN; stationary 0 %; int16: all 0; silence for the
#            first second only: 0 %.
# So:        One unplugged microphone makes half of the result NaN, and with it every level and score taken over
#            the channels.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 noisereduce==3.0.3
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import warnings

import noisereduce
import numpy as np

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

warnings.simplefilter("ignore")
noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
dead = np.stack([noise, np.zeros(48000)])
late = np.concatenate([np.zeros(16000), noise])

def share(y, **options):
    y = noisereduce.reduce_noise(y=y, sr=16000, **options)
    return np.isnan(np.atleast_2d(y)).mean(axis=1).tolist()

expect("NaN by channel, second one dead", share(dead), [0.0, 1.0])
expect("NaN by channel, second one dead, stationary", share(dead, stationary=True), [0.0, 0.0])
expect("NaN, first second silent", share(late), [0.0])
y = noisereduce.reduce_noise(y=np.zeros(48000, np.int16), sr=16000)
expect("int16 silence, values", np.unique(y).tolist(), [0])
EOF

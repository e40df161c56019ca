#!/usr/bin/env bash
# A room simulated by pyroomacoustics is 40 samples late at any rate.
#
# Versions:  pyroomacoustics 0.10.1, numpy 2.4.6, scipy 1.17.1
# Behaviour: The impulse response starts with half the fractional delay filter (81 taps) that places the
#            reflections, so the direct sound comes 40 samples after distance / speed of sound: 2.5 ms at 16
#            kHz, 5 ms at 8 kHz. It is a matter of samples, not of time: with a filter of 41 taps it is 20.
# Seen:      source 3.43 m from the microphone, 10 ms: expected at 80, 160 and 480 samples at 8, 16 and 48 kHz;
#            peaks at 120, 200, 520.
# So:        Reverberant speech must be moved by 40 samples before a score against the dry speech that knows no
#            lag, as SI-SDR, or lips.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 pyroomacoustics==0.10.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import pyroomacoustics as pra

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

def late(rate):
    room = pra.ShoeBox([10, 10, 10], fs=rate, max_order=0)
    room.add_source([2, 5, 5])
    room.add_microphone([2 + 0.01 * room.c, 5, 5])
    room.compute_rir()
    response = room.rir[0][0]
    return int(np.argmax(np.abs(response))) - rate // 100

for rate in 8000, 16000, 48000:
    expect(f"{rate} Hz, direct sound later than distance / speed, in samples", late(rate), 40)
pra.constants.set("frac_delay_length", 41)
expect("the same with a filter of 41 taps", late(16000), 20)
EOF

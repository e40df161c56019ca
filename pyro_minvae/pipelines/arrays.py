"""What callers in Python hand over: any kind of array, any whole number, and any setting of torch's globals."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from pyro_minvae.errors import InputError
from pyro_minvae.media.audio import LOUDEST

# More channels than samples, and more than these, are samples.
MOST_CHANNELS = 32


@contextmanager
def own_settings() -> Iterator[None]:
    """torch in single precision and without autocast, whatever the caller has set; also a decorator.

    The models are stored in single precision, and half of it does not hold powers of quiet bins.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        torch.set_default_dtype(before)


def whole_number(value: object, name: str, expected: str) -> int:
    """An integer of any kind (Python, NumPy, torch) as Python's.

    Raises:
        InputError: for anything else.
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name}: expected {expected}, found {value!r}") from None


def as_channels(waveform: np.ndarray | Tensor) -> np.ndarray:
    """[S] or [channels, S] of any numbers, NumPy's or torch's, as float64 [channels, S] at the same scale.

    Raises:
        InputError: for other shapes, [S, channels] among them, for no samples, or for samples that are not finite or
            beyond any scale.
    """
    if isinstance(waveform, Tensor):
        waveform = waveform.detach().cpu().to(torch.float64).numpy()
    try:
        signal = np.asarray(waveform, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"waveform: expected numbers, found {type(waveform).__name__} ({error})") from None
    if signal.ndim not in (1, 2):
        raise InputError(f"waveform: expected shape [S] or [channels, S], found {list(signal.shape)}")
    if signal.size == 0:
        raise InputError("waveform: expected at least one sample, found none")
    if signal.ndim == 2 and len(signal) > max(MOST_CHANNELS, signal.shape[1]):
        raise InputError(
            f"waveform: expected shape [channels, S], found {list(signal.shape)}, which looks like [S, channels]: "
            "give waveform.T"
        )
    if not np.isfinite(signal).all():
        raise InputError("waveform: expected finite samples, found NaN or infinity")
    peak = float(np.abs(signal).max())
    if peak > LOUDEST:
        raise InputError(f"waveform: expected samples up to {LOUDEST:g}, found {peak:g}")
    return signal.reshape(-1, signal.shape[-1])

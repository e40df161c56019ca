"""What pyproject.toml cannot say: the engine's fused passes are compiled, if they can be."""

from setuptools import Extension, setup

FOLDER = "pyro_minvae/fused"

# Sums may be taken in any order, so that they become vectors; NaN and infinity keep their meaning.
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-ffp-contract=fast",
]

passes = Extension(
    "pyro_minvae.fused._passes",
    [f"{FOLDER}/{name}.c" for name in ("module", "rows", "speech", "chains", "noise", "products")],
    depends=[f"{FOLDER}/{name}.h" for name in ("passes", "speech", "chains", "noise", "products")],
    extra_compile_args=FLAGS,
    # Without a compiler, or with one that does not know these words, the library does the same with torch.
    optional=True,
)

setup(ext_modules=[passes])

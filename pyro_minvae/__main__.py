"""`python -m pyro_minvae` is the program `pyro-minvae`."""

from pyro_minvae.cli.main import main

if __name__ == "__main__":
    main()

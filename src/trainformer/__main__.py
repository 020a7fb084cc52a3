"""`python -m trainformer` is the command `trainformer`."""

from trainformer.cli import main

if __name__ == "__main__":
    main()

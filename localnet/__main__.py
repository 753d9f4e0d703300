"""`python -m localnet`."""

import gc

# Start-up makes hundreds of thousands of objects that live as long as the process; looking through them for garbage
# would take a fifth of the start. `localnet.cli` turns collection on again once the chain answers.
gc.disable()

from localnet.cli import main  # noqa: E402

if __name__ == "__main__":
    main()

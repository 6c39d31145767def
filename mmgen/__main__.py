"""`python -m mmgen` is the `mmgen` command."""

from mmgen.cli import main

if __name__ == "__main__":
    main()

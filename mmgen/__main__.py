"""`mmgen` and `python -m mmgen`: Ctrl-C is one line and exit code 130, also while imports run."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from mmgen.cli import main as run

        run()
    except KeyboardInterrupt:
        print("mmgen: Stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

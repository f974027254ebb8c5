"""lm-evaluation-harness that knows DRTs: `python -m gcattn.lm_eval --model hf …`.

The arguments are those of `lm_eval`; importing this package is all that it takes.
"""

import sys


def main() -> None:
    """Run the harness with the arguments of the command line."""
    try:
        from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found]
    except ImportError:
        sys.exit("lm-evaluation-harness is not installed: pip install lm-eval")
    cli_evaluate()


if __name__ == "__main__":
    main()

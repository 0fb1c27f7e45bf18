"""The program: the command `llm-doctor`, and `python -m llm_doctor`."""

import sys


def main() -> None:
    """Runs it on the standard library itself, whatever modules lie in the current folder or on PYTHONPATH: a
    json.py beside a training script is common."""
    library = f"{sys.base_prefix}/"
    sys.path.sort(
        key=lambda folder: (
            not (folder.startswith(library) and "/python3" in folder and not folder.endswith("-packages"))
        )
    )
    from llm_doctor.cli import main as program

    program()


if __name__ == "__main__":
    main()

"""`python -m llm_doctor` is the same program as the command `llm-doctor`."""

from llm_doctor.cli import main

if __name__ == "__main__":
    main()

"""`python -m medvlm` is `medvlm`."""

from medvlm.cli import main

if __name__ == "__main__":
    main()

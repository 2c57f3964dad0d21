"""Run the command line: python -m partwarden."""

from .cli import program

if __name__ == "__main__":
    program()

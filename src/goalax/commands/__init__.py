"""The command lines, one a file; each has `main(argv) -> exit code`."""

"""What tests of measured speeds share: flags of a benchmark at toy size, and an error that names no file."""

from tests.helpers import toy

ARGV = [*toy.TINY, "--seconds", "0.02"]
NAMELESS = OSError(28, "No space left on device")


def raising(error):
    def call(*_):
        raise error

    return call

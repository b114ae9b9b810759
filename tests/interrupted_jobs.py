"""Jobs that are killed in tests of the campaign of faults: one that stands it, and two that do not."""

import time


def nothing(output, source):
    """No sources."""


def whole_or_absent(output, source):
    """Writes beside the place, and goes on where it was."""
    output.mkdir(exist_ok=True)
    for k in range(20):
        time.sleep(0.02)
        if not (output / str(k)).exists():
            (output / "partial").write_text(str(k))
            (output / "partial").rename(output / str(k))


def half_written(output, source):
    """Writes in place, and takes what is there for whole."""
    output.mkdir(exist_ok=True)
    for k in range(5):
        if not (output / str(k)).exists():
            with (output / str(k)).open("w") as file:
                for word in "what is written slowly may be cut":
                    file.write(word)
                    file.flush()
                    time.sleep(0.005)


def stumbles(output, source):
    """Cannot go on."""
    output.mkdir()
    time.sleep(0.3)

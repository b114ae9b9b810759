"""``python -m nfn_conformance FILE``: run every check on the subject a Python file defines, and print what was measured."""

import argparse
import json
import runpy
import sys
from pathlib import Path

from nfn_conformance import Subject, measure_all


def main() -> int:
    """Run the command; the exit status is 1 if a check fails."""
    parser = argparse.ArgumentParser(prog="python -m nfn_conformance", description=__doc__)
    parser.add_argument("file", type=Path, help="Python file that defines `subject`, an nfn_conformance.Subject")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn (default: 0)")
    parser.add_argument("--json", type=Path, metavar="REPORT", help="also write the measurements to a JSON file")
    options = parser.parse_args()
    if not options.file.is_file():
        parser.error(f"{options.file} is no file: give a Python file that defines `subject`.")
    subject = runpy.run_path(str(options.file)).get("subject")
    if not isinstance(subject, Subject):
        parser.error(f"{options.file} must define `subject`, an nfn_conformance.Subject, not {subject!r}.")
    found = measure_all(subject, options.seed)
    print(f"{subject.name}\n{'check':13}{'status':14}{'measured':>11}{'limit':>11}  what")
    for m in found:
        figures = ("" if x is None else f"{x:.3g}" for x in (m.value, m.limit))
        print(f"{m.check:13}{m.status:14}" + "".join(f"{x:>11}" for x in figures) + f"  {m.note}")
    if options.json:
        report = {"subject": subject.name, "seed": options.seed, "measurements": [m.as_dict() for m in found]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(m.status == "failed" for m in found))


if __name__ == "__main__":
    sys.exit(main())

"""The programs of a run: those of this source tree, built, or those of a folder."""
import os
import subprocess
import sys

import place

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
BUILD = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(TREE, "target")), "release")


def build(args):
    """Fills in `args.programs` and `args.loadgen`; builds unless a folder was named."""
    if not args.programs:
        args.programs = BUILD
        if not os.environ.get(place.INSIDE):
            command = [os.environ.get("CARGO", "cargo"), "build", "--release", "-p", "pushpin", "-p", "loadgen"]
            subprocess.run(command, cwd=TREE, check=True, stdout=sys.stderr)
    args.loadgen = os.path.join(args.programs, "loadgen")

"""Makes name-of-it.wasm of name_of_it.py: `python build.py name_of_it.py [--out FOLDER] [--wit FOLDER]`.

Run it with the Python that has `componentize-py` (see requirements.txt).
"""

import argparse
import subprocess
import sysconfig
from pathlib import Path

here = Path(__file__).resolve().parent
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("source", type=Path, help="the policy's module")
arguments.add_argument("--out", type=Path, default=Path("."), help="where the .wasm file goes")
# The contract, as it lies in Backstop's repository. Whoever copies this folder elsewhere copies that one too.
arguments.add_argument("--wit", type=Path, default=here.parent.parent / "wit", help="the contract's folder")
given = arguments.parse_args()

# A module's name has underscores where a policy's has dashes.
target = given.out / f"{given.source.stem.replace('_', '-')}.wasm"
given.out.mkdir(parents=True, exist_ok=True)
aside = target.with_suffix(".wasm.tmp")
tool = Path(sysconfig.get_path("scripts")) / "componentize-py"
command = [tool, "--quiet", "--wit-path", given.wit, "--world", "policy", "componentize", given.source.stem]
# Without its stubs for WASI a component imports clocks, files and randomness, and the host refuses it.
command += ["--stub-wasi", "--python-path", given.source.resolve().parent, "--output", aside]
subprocess.run(command, check=True)

# Written beside and renamed, so that a running host never reads half a policy.
aside.replace(target)
print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")

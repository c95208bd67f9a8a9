"""How often an audit finds a judge's bias, and how often it accuses a fair one, by its size (`dynaq.audit.planted`).

python -m bench.audit
"""

from __future__ import annotations

import argparse
import time

from dynaq.audit.planted import AUDITS, BIAS, NOISE_DEVIATION, self_test


def main() -> None:
    """Print a table: audits of several sizes, biases and noises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audits", type=int, default=AUDITS, help="judges with the bias, and as many without")
    audits = parser.parse_args().audits
    print(f"{audits} audits each\nprofiles  jobs   bias  noise  power  false alarms  seconds")
    sizes = [(8, 4, BIAS), (16, 4, BIAS), (16, 4, BIAS / 2), (32, 10, BIAS / 2), (32, 10, BIAS / 4), (64, 10, BIAS / 4)]
    for noise in (NOISE_DEVIATION, 2 * NOISE_DEVIATION):
        for profiles, jobs, bias in sizes:
            began = time.monotonic()
            found = self_test(profiles, jobs, bias=bias, noise=noise, audits=audits)
            print(
                f"{profiles:8d}  {jobs:4d}  {bias:+.3f}  {noise:5.2f}  {found.power:5.3f}  {found.false_alarms:12.3f}  "
                f"{time.monotonic() - began:7.1f}"
            )


if __name__ == "__main__":
    main()

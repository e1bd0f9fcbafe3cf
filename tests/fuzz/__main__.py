"""Feeds one decoder what atheris, a coverage-guided fuzzer, makes of its seeds: python -m tests.fuzz DECODER INPUTS."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["common", "replay_server", "msgpack"], enable_loader_override=False):
    from tests.fuzz.decoders import DECODERS

MOST_MEMORY_MB = 512
MOST_SECONDS_AN_INPUT = 10
LONGEST_INPUT = 8_192


def main(name: str, inputs: str, seed: str = "1") -> None:
    """Ends the process: code 0 when nothing but the protocol's errors came out, and the memory held."""
    logging.disable()
    decoder = DECODERS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for i, example in enumerate(decoder.seeds):
        (corpus / str(i)).write_bytes(example)
    limits = (f"-rss_limit_mb={MOST_MEMORY_MB}", f"-timeout={MOST_SECONDS_AN_INPUT}", f"-max_len={LONGEST_INPUT}")
    options = (f"-runs={inputs}", f"-seed={seed}", *limits, f"-artifact_prefix={corpus}/", "-print_final_stats=1")
    atheris.Setup([sys.argv[0], str(corpus), *options], decoder.open)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

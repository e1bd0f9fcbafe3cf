"""The newest weights that a learner has sent, for actors that join later."""

from __future__ import annotations

from common.errors import ProtocolError
from common.wire.codec import Buffer
from common.wire.weights import unpack_weights
from replay_server.table.table import Table


class LatestWeights:
    """One checked frame of weights, or none yet."""

    def __init__(self, frame: bytes | None = None) -> None:
        """Takes the frame that an earlier process stored; ProtocolError if it is damaged."""
        self.frame = frame
        self.version = unpack_weights(frame).header.version if frame else 0

    def store_if_newer(self, frame: Buffer, version: int, table: Table) -> bool:
        """Stores a frame if it is newer; returns whether it was. ProtocolError if it is damaged or of another run."""
        header = unpack_weights(frame).header
        if (header.run, header.data_hash, header.version) != (table.run.id, table.data_hash, version):
            raise ProtocolError(f"weights {version} do not belong to the run {table.run.id}")
        if version <= self.version:
            return False
        self.frame, self.version = bytes(frame), version
        return True

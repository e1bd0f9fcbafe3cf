"""A replay server and a learner of a test's own for one session: real sockets that answer whatever a history needs."""

from __future__ import annotations

import msgspec
import numpy as np
import zmq

from actor_node.replay_session import ReplaySession
from common.wire.codec import decode_from_peer, encode
from common.wire.messages import Chunk, Hello, Welcome
from common.wire.sockets import bind, make_socket, receive, send
from common.wire.weights import MAGIC
from tests.common.examples import BOXES, make_frame, make_run
from tests.conftest import wait_until

RUN = make_run(BOXES)
WEIGHTS = make_frame(RUN)
OTHERS = {
    "run": msgspec.structs.replace(RUN, id="other"),
    "world": make_run(BOXES, world={"N": 5}),
    "networks": make_run(BOXES, network={"policy_hidden": [8]}),
    "exploration": make_run(BOXES, exploration={"kind": "ornstein_uhlenbeck"}),
}


class Peers:
    """The replay server and the learner, as a session sees them, and the session's clock."""

    def __init__(self, context):
        self.socket = make_socket(context, zmq.ROUTER, max_frame_bytes=2**20)
        self.url = bind(self.socket, "tcp://127.0.0.1:0", "--bind")
        self.broadcast = context.socket(zmq.XPUB)
        self.weights_url = bind(self.broadcast, "tcp://127.0.0.1:0", "--bind")
        self.session = ReplaySession("a", self.url, self.weights_url)
        self.now = 100.0
        self.peer = b""
        self.heard = []
        """Messages that came and were not yet asked for."""

    def pump(self, after_s=0.0):
        self.now += after_s
        self.session.poll(self.now)

    def hears(self, kind):
        """Returns the next message of a kind, which the session sends by itself; others that come first are kept."""

        def look():
            self.session.poll(self.now)
            while self.socket.poll(0):
                self.peer, *frames = (bytes(frame) for frame in receive(self.socket))
                self.heard.append(decode_from_peer(frames))
            return next((one for one in self.heard if isinstance(one[0], kind)), None)

        found = wait_until(look, f"a {kind.__name__}")
        self.heard.remove(found)
        return found[0]

    def hears_nothing(self, kind):
        self.session.poll(self.now)
        self.pump_for(5)
        assert not self.socket.poll(30)
        assert not any(isinstance(message, kind) for message, _ in self.heard)

    def pump_for(self, times):
        for _ in range(times):
            self.session.poll(self.now, timeout_s=0.005)

    def says(self, message, payload=None):
        send(self.socket, [self.peer, *encode(message, payload)])

    def welcome(self, *, run=RUN, incarnation=1, stored=0, credit=3, weights=WEIGHTS):
        self.says(Welcome(run, incarnation, stored, credit), weights)

    def until(self, predicate, what=""):
        wait_until(lambda: self.session.poll(self.now) or predicate(), what)

    def admit(self, **welcome):
        self.hears(Hello)
        self.welcome(**welcome)
        self.until(lambda: self.session.waiting_for()[0] != "replay", "admitted")

    def collect(self, count=1):
        for _ in range(count):
            payload = np.full(10, self.session.outbox.next_seq, np.uint8).data
            self.session.add_chunk(5, 1, payload)

    def chunks(self, count):
        """Returns the seqs of the next chunks that come."""
        return [self.hears(Chunk).seq for _ in range(count)]

    def publish(self, frame):
        self.broadcast.send(frame)

    def subscribed(self):
        assert self.broadcast.poll(5_000), "no subscription"
        assert self.broadcast.recv() == b"\x01" + MAGIC

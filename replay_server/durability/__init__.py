"""How chunks survive the replay server: the journal, the committer and the chunk log in Redis.

A chunk's life has five states, each with one type:

| state   | type                    | where                   | what it means                                   |
|---------|-------------------------|-------------------------|-------------------------------------------------|
| message | `Chunk` and its payload | `common.wire.messages`  | on the wire from actor to replay server         |
| pending | `PendingChunk`          | `actor_node.outbox`     | the actor stores it until it is acknowledged    |
| logged  | `LoggedChunk`           | `durability.chunk_log`  | in the ring, on its way to the log, not durable |
| stored  | `StoredChunk`           | `durability.log_index`  | durable and acknowledged: the log contains it   |
| audit   | `Stored`, `Recovered`   | `common.wire.audit`     | recorded in the audit file, if there is one     |

A stored chunk that is read back from the log is a message and its payload again. At durability `ram` there is no log:
a chunk is acknowledged as soon as it is in the ring.
"""

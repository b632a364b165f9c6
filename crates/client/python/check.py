"""Drives a real engine by `surety.py`: check.py HOST PORT IDENTITY PARTITION FREE. Prints "checked" if all is as WIRE.md says."""

import asyncio
import sys

import surety
from surety import Client

PATIENCE_S = 60


async def money(client, partition):
    """Locks, captures, releases: each repeat is answered as the first time and moves nothing."""
    free = (await client.lookup(partition, client.new_id())).free
    id = client.new_id()
    reply = await client.lock(partition, 100, merchant=501, id=id, category=5411, life_ms=600_000)
    assert (reply.code, reply.approved, reply.free) == (surety.APPROVED, 100, free - 100), reply
    assert (reply.end, reply.version, reply.capture) == (surety.LIVE, 1, 65535), reply
    again = await client.lock(partition, 100, merchant=501, id=id, category=5411, life_ms=600_000)
    assert again.is_replayed and (again.code, again.seq) == (reply.code, reply.seq), again
    other = await client.lock(partition, 101, merchant=501, id=id)
    assert (other.code, other.seq) == (surety.ID_CONFLICT, 0), other
    first = await client.capture(partition, lock=id, amount=30)
    assert (first.approved, first.remaining, first.capture) == (30, 70, 0), first
    found = await client.lookup(partition, id)
    assert (found.code, found.end, found.capture, found.approved) == (surety.APPROVED, surety.LIVE, 1, 100), found
    last = await client.capture(partition, lock=id, amount=20, final=True)
    assert (last.approved, last.remaining, last.free) == (20, 0, free - 50), last
    late = await client.capture(partition, lock=id, amount=1)
    assert late.is_decline, late
    given = client.new_id()
    await client.lock(partition, 40, merchant=501, id=given)
    released = await client.release(partition, lock=given)
    assert (released.code, released.approved, released.end) == (surety.APPROVED, 40, surety.RELEASED), released
    assert released.free == free - 50
    return [id, given]


async def declines(client, partition, free):
    much = await client.lock(partition, free + 1, merchant=501)
    assert much.code == surety.INSUFFICIENT and not much.is_success, much
    # A release before its lock.
    early = client.new_id()
    mark = await client.release(partition, lock=early)
    assert (mark.code, mark.end) == (surety.APPROVED, surety.TOMBSTONE), mark
    assert (await client.lock(partition, 1, merchant=501, id=early)).code == surety.ALREADY_RELEASED
    # A lost request that never arrived.
    lost = client.new_id()
    assert await client.resolve(partition, lost) is None
    assert (await client.lock(partition, 1, merchant=501, id=lost)).code == surety.BURNED
    part = await client.lock(partition, 10 * free, merchant=501, floor=1)
    assert (part.code, part.approved, part.free) == (surety.PARTIAL, free, 0), part
    assert (await client.release(partition, lock=part.id)).approved == part.approved


async def many(client, partition):
    """Hundreds at once, answered in any order."""
    ids = [client.new_id() for _ in range(300)]
    replies = await asyncio.gather(*(client.lock(partition, 1, merchant=501, id=id) for id in ids))
    assert [reply.id for reply in replies] == ids and all(reply.is_success for reply in replies)
    await asyncio.gather(*(client.release(partition, lock=id) for id in ids))
    # The same id twice at once: one lock, and an answer to both.
    id = client.new_id()
    one, other = await asyncio.gather(*(client.lock(partition, 1, merchant=501, id=id) for _ in range(2)))
    assert one.is_success and (one.code, one.seq) == (other.code, other.seq), (one, other)
    released = await client.release(partition, lock=id)
    assert (released.approved, released.free) == (1, one.free + 1), released
    # Another request under an id that is on its way gets no answer that is the first one's.
    other_id = client.new_id()
    both = [client.lock(partition, amount, merchant=501, id=other_id) for amount in (1, 2)]
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert first.is_success and isinstance(second, ValueError), (first, second)
    assert (await client.release(partition, lock=other_id)).approved == 1
    link = await client.link(partition >> 48)
    assert not link.waiting, link.waiting
    return [*ids, id, other_id]


async def follow(client, partition, wanted):
    """The change stream has every record once, in order."""
    seen, last = {}, 0
    async for record in client.tail(partition >> 48):
        if record is None:
            if wanted <= seen.keys():
                return
            continue
        assert record.seq > last, record
        last = record.seq
        if record.kind == surety.LOCK:
            assert record.id not in seen and record.tenant == client.identity.tenant, record
            seen[record.id] = record


async def main(host, port, identity, partition, free):
    partition, free = int(partition), int(free)
    client = await Client.connect(host, int(port), identity)
    ids = await money(client, partition)
    await declines(client, partition, free - 50)
    ids += await many(client, partition)
    await asyncio.wait_for(follow(client, partition, set(ids)), PATIENCE_S)
    tokens = client.tokens
    assert len(tokens) >= 1
    await client.close()
    # Another client, with the tokens of the first.
    client = await Client.connect(host, int(port), identity, tokens)
    assert (await client.lookup(partition, ids[0])).end == surety.FINAL_END
    await client.close()
    # A certificate that names somebody else.
    try:
        await Client.connect(host, int(port), identity, tokens, server_name="elsewhere")
    except ConnectionError:
        pass
    else:
        raise AssertionError("the engine's certificate names no such host")
    # A token that is none of the engine's.
    forged = {shard: token[:47] + bytes([token[47] ^ 1]) for shard, token in tokens.items()}
    try:
        await Client.connect(host, int(port), identity, forged)
    except surety.Closed as error:
        assert "0x104" in str(error), error
    else:
        raise AssertionError("a forged token was taken")
    print("checked")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 3 * PATIENCE_S))

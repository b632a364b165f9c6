"""A client of a Surety engine, written from crates/protocol/WIRE.md alone.

    client = await Client.connect("127.0.0.1", 7400, "pki/authorizer.pem")
    reply = await client.lock(partition=1, amount=25 * 10**18, merchant=501)
    if reply.is_success:
        await client.capture(1, lock=reply.id, amount=25 * 10**18, final=True)

Requests keep their ids through every sending, so that none takes effect twice. A decline is a reply, not an exception.
"""

import asyncio
import contextlib
import secrets
import ssl
import struct
import time
from dataclasses import dataclass

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import UniformResourceIdentifier, SubjectAlternativeName, load_pem_x509_certificates

# Frame kinds.
HELLO, HELLO_REPLY, REQUESTS, REPLIES, SUBSCRIBE, RECORDS, GOODBYE = range(1, 8)
# Record kinds.
LOCK, INCREASE, DECREASE, CAPTURE, RELEASE, REVERSE, REFUND, ADVICE, LOOKUP = range(1, 10)
# Flags of a sender.
FINAL, ALL_OR_NOTHING, SALE, BURN, LASTING = 0x02, 0x04, 0x10, 0x20, 0x40
# Codes, by name where somebody asks for them.
ID_CONFLICT, QUOTA, OVERLOADED, STORAGE_LOW, CHAIN_STALE, NOT_FOUND = 5, 8, 9, 10, 11, 12
BURNED, ALREADY_RELEASED, INSUFFICIENT, APPROVED, PARTIAL = 33, 34, 48, 64, 65
NOT_NOW = {QUOTA, OVERLOADED, STORAGE_LOW, CHAIN_STALE}
# States of a lock.
NONE, LIVE, FINAL_END, RELEASED, EXPIRED, SETTLED, DECLINED, TOMBSTONE, EXPOSED = range(9)

HEADER = struct.Struct("<IBBHQ")
HELLO_BODY = struct.Struct("<IHHII32s")
HELLO_REPLY_BODY = struct.Struct("<16sQQQIIHHHHIBB2s")
TAIL_HEAD = struct.Struct("<QQIHB9s")
MAGIC = int.from_bytes(b"SRTY", "little")


class Closed(Exception):
    """The connection is gone. What was not answered may have been executed: send it again under its id."""


class Unknown(Exception):
    """There was no reply in time: the request may have been executed. `resolve` finds out."""


class Lost(Exception):
    """The change stream cannot go on from this cursor."""


def u128(value):
    return value.to_bytes(16, "little")


def of_u128(data):
    return int.from_bytes(data, "little")


def record(kind, id, partition, amount=0, body=b"", flags=0):
    """The 128 bytes of a request."""
    body = body.ljust(56, b"\0")
    assert len(body) == 56
    tail = struct.pack("<QQIHBB", partition, 0, 0, flags, kind, 0)
    return u128(id) + u128(amount) + bytes(16) + body + tail


def lock_body(merchant, category=0, life_ms=0, floor=0, user=0):
    return u128(floor) + struct.pack("<QQQQIHH", merchant, 0, 0, user, life_ms, category, 0)


def change_body(lock, capture=0, version=0, user=0):
    return u128(lock) + bytes(16) + struct.pack("<QQIHH", 0, user, 0, capture, version)


@dataclass(frozen=True)
class Reply:
    id: int
    approved: int
    remaining: int
    free: int
    extra: int
    seq: int
    deadline: int
    time: int
    epoch: int
    shard: int
    version: int
    capture: int
    code: int
    end: int
    is_replayed: bool
    kind: int

    @classmethod
    def read(cls, data):
        amounts = [of_u128(data[at : at + 16]) for at in range(0, 80, 16)]
        seq, deadline, now, epoch, shard, version, capture, code, end, flags, kind = struct.unpack_from(
            "<QQQIHHHBBBB", data, 80
        )
        return cls(*amounts, seq, deadline, now, epoch, shard, version, capture, code, end, bool(flags & 1), kind)

    @property
    def is_success(self):
        return self.code >= 64

    @property
    def is_decline(self):
        return 32 <= self.code < 64


@dataclass(frozen=True)
class Record:
    """A record of the change stream, at its seq."""

    seq: int
    id: int
    amount: int
    result: int
    body: bytes
    partition: int
    time: int
    tenant: int
    flags: int
    kind: int
    code: int

    @classmethod
    def read(cls, seq, data):
        amounts = [of_u128(data[at : at + 16]) for at in range(0, 48, 16)]
        return cls(seq, *amounts, data[48:104], *struct.unpack_from("<QQIHBB", data, 104))


class Identity:
    """Certificate, key and authorities out of one PEM file, as `surety init` writes it."""

    def __init__(self, path):
        text = open(path, "rb").read()
        certificates = load_pem_x509_certificates(text)
        begin = text.index(b"PRIVATE KEY-----")
        end = text.index(b"-----END", begin)
        head = text[: text.rindex(b"-----BEGIN", 0, begin)]
        self.key = load_pem_private_key(text[len(head) : text.index(b"\n", end) + 1], None)
        own = len(load_pem_x509_certificates(head))
        self.chain = certificates[:own]
        self.authorities = text[text.index(b"\n", end) + 1 :]
        names = self.chain[0].extensions.get_extension_for_class(SubjectAlternativeName).value
        uri = names.get_values_for_type(UniformResourceIdentifier)[0]
        self.tenant = int(uri.removeprefix("surety://tenant/").split("/")[0])


class Protocol(QuicConnectionProtocol):
    """Tells when the connection has ended, and why."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        super().quic_event_received(event)
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event.error_code)


class Stream:
    """A stream of frames each way, behind its hello."""

    def __init__(self, protocol, reader, writer):
        self.protocol, self.reader, self.writer, self.sent = protocol, reader, writer, 0

    def send(self, kind, count, body):
        self.writer.write(HEADER.pack(len(body), kind, 0, count, self.sent) + body)
        self.sent += 1

    async def receive(self):
        try:
            length, kind, _, count, _ = HEADER.unpack(await self.reader.readexactly(16))
            return kind, count, await self.reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise Closed("the stream has ended") from error


class Link:
    """A connection to one shard."""

    def __init__(self, client, shard):
        self.client, self.shard = client, shard
        self.waiting, self.stack, self.tasks = {}, contextlib.AsyncExitStack(), []

    async def open(self, port):
        identity = self.client.identity
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["surety/1"], idle_timeout=10.0)
        configuration.server_name = self.client.server_name
        configuration.verify_mode = ssl.CERT_REQUIRED
        configuration.load_verify_locations(cadata=identity.authorities)
        configuration.certificate, *configuration.certificate_chain = identity.chain
        configuration.private_key = identity.key
        host = self.client.host
        opening = connect(host, port, configuration=configuration, create_protocol=Protocol)
        self.protocol = await self.stack.enter_async_context(opening)
        self.stream, hello = await self.open_stream()
        self.tasks = [asyncio.ensure_future(self.read()), asyncio.ensure_future(self.keep_alive())]
        return hello

    async def open_stream(self):
        stream = Stream(self.protocol, *await self.protocol.create_stream())
        tokens = list(self.client.tokens.values())
        body = HELLO_BODY.pack(MAGIC, 1, 1, self.client.identity.tenant, 0, b"python")
        stream.send(HELLO, len(tokens), body + b"".join(tokens))
        try:
            kind, _, body = await stream.receive()
        except Closed:
            code = await asyncio.wait_for(self.protocol.ended, 5)
            raise Closed(f"refused with {code:#x}") from None
        if kind != HELLO_REPLY:
            raise Closed(f"frame {kind} instead of a hello")
        return stream, body

    async def read(self):
        """Gives each reply to whoever waits for it."""
        try:
            while True:
                kind, count, body = await self.stream.receive()
                if kind == GOODBYE:
                    break
                self.client.learn_token(body[:48])
                for at in range(48, 48 + 128 * count, 128):
                    reply = Reply.read(body[at : at + 128])
                    _, waiting = self.waiting.pop(reply.id, (None, None))
                    if waiting and not waiting.done():
                        waiting.set_result(reply)
        except Closed:
            pass
        self.client.links.pop(self.shard, None)
        for _, waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(Closed("no reply before the connection ended"))

    async def keep_alive(self):
        with contextlib.suppress(ConnectionError):
            while not self.protocol.ended.done():
                await asyncio.sleep(3)
                await self.protocol.ping()

    async def ask(self, request):
        """Sends a request. Who sends the same again while it is on its way waits for the same reply; it is not sent twice."""
        id = of_u128(request[:16])
        known = self.waiting.get(id)
        if known is None:
            reply = asyncio.get_running_loop().create_future()
            # It may be that nobody waits any more.
            reply.add_done_callback(lambda reply: reply.cancelled() or reply.exception())
            known = self.waiting[id] = (request, reply)
            self.stream.send(REQUESTS, 1, request)
            self.protocol.transmit()
        elif known[0] != request:
            raise ValueError(f"another request is on its way under the id {id:#x}")
        # Who gives up leaves the others waiting.
        return await asyncio.shield(known[1])

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await self.stack.aclose()


class Client:
    """One engine, all of its shards."""

    def __init__(self, host, identity, tokens, server_name):
        self.host, self.identity, self.tokens, self.server_name = host, identity, dict(tokens), server_name
        self.links, self.ports, self.offset_ns = {}, {}, 0
        self.opening = asyncio.Lock()

    @classmethod
    async def connect(cls, host, port, identity, tokens=(), server_name="localhost"):
        """Dials any shard's port. `tokens` are those of an earlier client of the engine (`client.tokens`), `server_name` is what its
        certificate must name."""
        client = cls(host, Identity(identity), tokens, server_name)
        link = Link(client, 0)
        hello = await link.open(port)
        fields = HELLO_REPLY_BODY.unpack_from(hello)
        client.engine, shards, link.shard = of_u128(fields[0]), fields[8], fields[7]
        client.offset_ns = fields[1] - time.time_ns()
        ports = struct.unpack_from("<256H", hello, 64)
        client.ports = dict(enumerate(ports[:shards]))
        client.links[link.shard] = link
        return client

    def learn_token(self, token):
        """Keeps the newest token of a shard: presented in every hello, it betrays an engine that was put back to old data."""
        synced, epoch, shard = struct.unpack_from("<QIH", token, 16)
        known = self.tokens.get(shard)
        if known is None or struct.unpack_from("<QI", known, 16)[::-1] <= (epoch, synced):
            self.tokens[shard] = bytes(token)

    def new_id(self, lasting=False):
        """A UUIDv7 on the engine's clock; of version 8 for what lasts."""
        milliseconds = (time.time_ns() + self.offset_ns) // 1_000_000
        version = 8 if lasting else 7
        return milliseconds << 80 | version << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)

    async def link(self, shard):
        async with self.opening:
            if shard not in self.links:
                link = Link(self, shard)
                await link.open(self.ports[shard])
                self.links[shard] = link
            return self.links[shard]

    async def submit(self, request, timeout=10.0):
        """Sends a request under its id until there is a definite reply."""
        partition = struct.unpack_from("<Q", request, 104)[0]
        deadline, pause = time.monotonic() + timeout, 0.01
        is_open = False
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                    reply = await (await self.link(partition >> 48)).ask(request)
                # "Not now" speaks of this sending alone.
                if reply.code not in NOT_NOW:
                    return reply
                if not is_open and time.monotonic() + pause > deadline:
                    return reply
            except (Closed, ConnectionError):
                is_open = True
            except TimeoutError as error:
                raise Unknown(f"{of_u128(request[:16]):#x}") from error
            if time.monotonic() + pause > deadline:
                raise Unknown(f"{of_u128(request[:16]):#x}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def lock(self, partition, amount, merchant, id=None, flags=0, **body):
        """Guarantees an amount to a merchant. The lock's id is the request's."""
        return await self.submit(
            record(LOCK, id or self.new_id(), partition, amount, lock_body(merchant, **body), flags)
        )

    async def capture(self, partition, lock, amount, final=False, id=None):
        flags = FINAL if final else 0
        return await self.submit(record(CAPTURE, id or self.new_id(), partition, amount, change_body(lock), flags))

    async def release(self, partition, lock, id=None):
        """Gives back what a lock holds. Of one that is not known it leaves a mark, so that it is never made."""
        return await self.submit(record(RELEASE, id or self.new_id(), partition, 0, change_body(lock)))

    async def lookup(self, partition, id, burn=False):
        """What became of an id. With `burn` an unknown one is spent, which alone makes "not executed" definite."""
        return await self.submit(record(LOOKUP, self.new_id(), partition, 0, change_body(id), BURN if burn else 0))

    async def resolve(self, partition, id):
        """The definite outcome of a request without a reply; None if it was not executed and never will be."""
        reply = await self.lookup(partition, id, burn=True)
        if reply.code != NOT_FOUND:
            return reply
        if reply.seq == 0:
            raise Unknown("too old to tell: read the change stream")
        return None

    async def tail(self, shard, first=1):
        """The shard's durable records from a seq on, each once. Yields None where a frame had none: nothing is new."""
        stream, _ = await (await self.link(shard)).open_stream()
        stream.send(SUBSCRIBE, 1, struct.pack("<QH6s", first, shard, b""))
        stream.protocol.transmit()
        while True:
            kind, count, body = await stream.receive()
            if kind != RECORDS:
                raise Closed(f"frame {kind} in a change stream")
            start, _, _, _, status, _ = TAIL_HEAD.unpack_from(body)
            if status != 0:
                raise Lost(f"status {status}, from {start}")
            for nth in range(count):
                yield Record.read(start + nth, body[32 + 128 * nth : 160 + 128 * nth])
            if count == 0:
                yield None

    async def close(self):
        for link in list(self.links.values()):
            await link.close()

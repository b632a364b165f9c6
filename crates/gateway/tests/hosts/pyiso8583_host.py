"""An acquirer's host made of PyPI's pyiso8583: pyiso8583_host.py HOST PORT SENT. Profile `ascii`, header `ascii4`. Prints "served"."""

import socket
import sys

import iso8583
from iso8583.specs import default_ascii as spec

CARD = "4929123456789012"


class Host:
    def __init__(self, host, port, sent):
        self.socket = socket.create_connection((host, port), timeout=60)
        self.sent = sent
        self.trace = 0

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the socket is open"
            data += more
        return data

    def ask(self, mti, **fields):
        """Sends a message, and gives the reply. Fields are f2, f4 and so on."""
        self.trace += 1
        message = {"t": mti, "7": self.sent, "11": f"{self.trace:06}"}
        message.update({name[1:]: text for name, text in fields.items()})
        data, _ = iso8583.encode(message, spec)
        self.socket.sendall(b"%04d" % len(data) + data)
        reply, _ = iso8583.decode(self.read(int(self.read(4))), spec)
        assert reply["11"] == message["11"], reply
        return message, reply

    def pay(self, mti, amount, **more):
        fields = dict(f2=CARD, f3="000000", f4=f"{amount:012}", f12="120000", f13="0101", f18="5411", f22="051")
        fields |= dict(f25="00", f32="123456", f37=f"PY{self.trace + 1:010}", f41="TERM0001", f42="501".ljust(15), f49="840")
        return self.ask(mti, **(fields | more))


def original(of):
    return f"{of['t']}{of['11']}{of['7']}{of['32']:0>11}{0:011}"


def main(host, port, sent):
    host = Host(host, int(port), sent)
    check = lambda answer, mti, code: (answer[1]["t"], answer[1]["39"]) == (mti, code) or sys.exit(f"{answer}")
    check(host.ask("0800", f70="001"), "0810", "00")
    check(host.ask("0800", f70="301"), "0810", "00")
    lock = host.pay("0100", 2500)
    check(lock, "0110", "00")
    assert lock[1]["4"] == "000000002500" and len(lock[1]["38"]) == 6, lock
    again = host.pay("0101", 2500, f11=lock[0]["11"], f37=lock[0]["37"])
    assert again[1] == lock[1], again
    about = dict(f37=lock[0]["37"], f90=original(lock[0]))
    done = host.pay("0220", 2000, f38=lock[1]["38"], **about)
    check(done, "0230", "00")
    sale = host.pay("0200", 1000)
    check(sale, "0210", "00")
    about = dict(f37=sale[0]["37"], f39="17", f90=original(sale[0]))
    check(host.pay("0400", 1000, f95="000000000400".ljust(42, "0"), **about), "0410", "00")
    lost = host.pay("0100", 700)
    check(host.pay("0420", 700, f39="68", f37=lost[0]["37"], f90=original(lost[0])), "0430", "00")
    check(host.pay("0120", 300, f38="STAND1", f39="00", f60="00"), "0130", "00")
    check(host.pay("0100", 999999999999), "0110", "51")
    check(host.pay("0100", 100, f49="999"), "0110", "12")
    zeros = {f"f{field}": "0" * size for fields, size in (((74, 75, 76, 77, 81), 10), ((82, 83, 84), 12), ((86, 87, 88, 89), 16)) for field in fields}
    check(host.ask("0500", f97="D" + "0" * 16, **zeros), "0510", "00")
    check(host.ask("0800", f70="002"), "0810", "00")
    check(host.pay("0100", 100), "0110", "91")
    print("served")


main(*sys.argv[1:])

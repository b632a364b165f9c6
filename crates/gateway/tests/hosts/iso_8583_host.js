// An acquirer's host made of npm's iso_8583: node iso_8583_host.js HOST PORT SENT. Profile `ascii_raw`, header `binary2`. Prints "served".
'use strict';
const assert = require('node:assert');
const net = require('node:net');
const Iso8583 = require('iso_8583');

const [host, port, sent] = process.argv.slice(2);
const CARD = '4929123456789012';
const socket = net.connect(Number(port), host);
socket.setTimeout(60000, () => socket.destroy(new Error('no reply')));
socket.on('error', (error) => { throw error; });
let read = Buffer.alloc(0);
let awaits = null;

function deliver() {
  if (awaits === null || read.length < 2 || read.length < 2 + read.readUInt16BE(0)) return;
  const length = 2 + read.readUInt16BE(0);
  const reply = new Iso8583().getIsoJSON(read.subarray(0, length));
  read = read.subarray(length);
  const waiting = awaits;
  awaits = null;
  waiting(reply);
}
socket.on('data', (data) => { read = Buffer.concat([read, data]); deliver(); });

let trace = 500;
async function ask(fields) {
  trace += 1;
  const message = { 7: sent, 11: String(trace).padStart(6, '0'), ...fields };
  const bytes = new Iso8583(message).getBufferMessage();
  assert(Buffer.isBuffer(bytes), JSON.stringify(bytes));
  socket.write(bytes);
  const reply = await new Promise((resolve) => { awaits = resolve; deliver(); });
  assert.strictEqual(reply[11], message[11]);
  return { message, reply };
}

const pay = (type, amount, more) => ask({
  0: type, 2: CARD, 3: '000000', 4: String(amount).padStart(12, '0'), 12: '120000', 13: '0101', 18: '5411', 22: '051', 25: '00',
  32: '123456', 37: `JS${String(trace + 1).padStart(10, '0')}`, 41: 'TERM0002', 42: '501'.padEnd(15), 49: '840', ...more,
});
const original = (of) => `${of[0]}${of[11]}${of[7]}${of[32].padStart(11, '0')}${'0'.repeat(11)}`;
const check = ({ reply }, type, code) => assert.deepStrictEqual([reply[0], reply[39]], [type, code], JSON.stringify(reply));

(async () => {
  check(await ask({ 0: '0800', 70: '001' }), '0810', '00');
  check(await ask({ 0: '0800', 70: '301' }), '0810', '00');
  const lock = await pay('0100', 2500);
  check(lock, '0110', '00');
  const again = await pay('0101', 2500, { 11: lock.message[11], 37: lock.message[37] });
  assert.deepStrictEqual(again.reply, lock.reply);
  const named = { 37: lock.message[37], 90: original(lock.message) };
  check(await pay('0220', 2000, { 38: lock.reply[38], ...named }), '0230', '00');
  const sale = await pay('0200', 1000);
  check(sale, '0210', '00');
  const back = { 37: sale.message[37], 39: '17', 90: original(sale.message), 95: '000000000400'.padEnd(42, '0') };
  check(await pay('0400', 1000, back), '0410', '00');
  const lost = await pay('0100', 700);
  check(await pay('0420', 700, { 39: '68', 37: lost.message[37], 90: original(lost.message) }), '0430', '00');
  check(await pay('0120', 300, { 38: 'STAND1', 39: '00', 60: '00' }), '0130', '00');
  check(await pay('0100', 999999999999), '0110', '51');
  const figures = {};
  for (const [fields, size] of [[[74, 75, 76, 77, 81], 10], [[82, 83, 84], 12], [[86, 87, 88, 89], 16]]) {
    fields.forEach((field) => { figures[field] = '0'.repeat(size); });
  }
  check(await ask({ 0: '0500', ...figures, 97: `D${'0'.repeat(16)}` }), '0510', '00');
  check(await ask({ 0: '0800', 70: '002' }), '0810', '00');
  check(await pay('0100', 100), '0110', '91');
  console.log('served');
  socket.end();
})();

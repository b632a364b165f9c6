// An engine with a console, as an operator starts it, and what the tests need of it.
import { execFile, spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { cp, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Where the program is. */
const SURETY = process.env.SURETY ?? new URL("../../../../target/release/surety", import.meta.url).pathname;

/** How long the history may be behind. */
const INDEXED_WITHIN_MS = 60_000;

const SCENARIO = `name = "open"
seed = 1
partitions = 3
merchants = 10
amount_min = 1_000_000_000_000_000_000
amount_max = 9_000_000_000_000_000_000

[[step]]
do = "lock"
`;

const CONSUMED = `${SCENARIO.replace('"open"', '"consumed"')}
[[step]]
do = "capture"
share_bps = 10_000
last = true

[[step]]
do = "consume"
`;

/** Stands in for the metrics listener of a settler. What it tells is the test's to change. */
export class StandIn {
  isWell = true;

  static async start() {
    const settler = new StandIn();
    settler.told = batches();
    settler.server = createServer((request, response) => {
      response.writeHead(settler.isWell && request.url === "/batches" ? 200 : 503, { connection: "close" });
      response.end(settler.isWell ? JSON.stringify(settler.told) : "");
    });
    await new Promise((resolve) => settler.server.listen(0, "127.0.0.1", resolve));
    settler.address = `127.0.0.1:${settler.server.address().port}`;
    return settler;
  }

  stop() {
    return new Promise((resolve) => this.server.close(resolve));
  }
}

/** A batch at every stage, and one that the contract refuses, as a settler tells them. */
function batches() {
  const now = Date.now();
  const stages = ["sealed", "posted", "posted", "mined", "final", "booked", "booked"];
  const batches = stages.map((stage, at) => {
    const sealed = now - (at + 1) * 600_000;
    const reached = (name) => (["sealed", "posted", "mined", "final", "booked"].indexOf(name) <= ["sealed", "posted", "mined", "final", "booked"].indexOf(stage));
    const since = (name, minutes) => (reached(name) ? sealed + minutes * 60_000 : null);
    return {
      batch: stages.length - at,
      stage,
      held: at === 1 ? "paused" : null,
      records: 1200 + at,
      partitions: 2,
      credited: `${3 + at}250000000000000000`,
      locked: "7000000000000000000",
      read: ["10", "10"],
      transaction: reached("posted") ? `0x${"ab".repeat(31)}0${at}` : null,
      block: reached("mined") ? 9_000 - at : null,
      sealed_ms: sealed,
      posted_ms: since("posted", 1),
      mined_ms: since("mined", 2),
      final_ms: since("final", 14),
      booked_ms: since("booked", 15),
    };
  });
  const chain = { block: 9_012, final_block: 8_948, block_time_s: Math.floor(now / 1000) };
  return { turn_age_ms: 5, interval_ms: 2_000, sealed: 7, final: 3, booked: 2, waiting_records: 40, waiting_age_ms: 90_000, unsettled_age_ms: 2_400_000, pending_transactions: 3, chain, batches };
}

export class Engine {
  /** Starts one without anything in it, whose console speaks TLS by the engine's own development certificate. */
  static async startSecured() {
    const engine = new Engine();
    engine.directory = await mkdtemp(join(tmpdir(), "surety-console-"));
    engine.data = join(engine.directory, "data");
    await engine.surety("init", "--data", engine.data, "--shards", "1");
    const tls = ["--console-certificate", join(engine.data, "pki", "server.pem"), "--console-key", join(engine.data, "pki", "server.key")];
    await engine.serve(...tls);
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "0", "--role", "admin", "--name", "olga", "--out", engine.file("olga"));
    return engine;
  }

  /** Starts one without anything in it, on the loopback. */
  static async startBare() {
    const engine = new Engine();
    engine.directory = await mkdtemp(join(tmpdir(), "surety-console-"));
    engine.data = join(engine.directory, "data");
    await engine.surety("init", "--data", engine.data, "--shards", "1");
    await engine.serve();
    return engine;
  }

  /** Starts one that goes on from a backup after a loss, with a partition that nobody has reconciled. */
  static async startLost() {
    const engine = await Engine.startBare();
    const { data: lost, directory } = engine;
    await engine.ctl("partition", "create", "0:1");
    const backup = join(directory, "backup");
    const taken = lastLine(await engine.surety("backup", "--data", lost, "--to", backup, "--json"));
    await engine.end("SIGKILL");
    engine.data = join(directory, "restored");
    const until = `${new Date(Date.now() + 2_000).toISOString().split(".")[0]}Z`;
    const accepted = ["--accept-loss-after", `0:${taken.shards[0].last_seq}`, "--lost-until", until];
    await engine.surety("restore", "--from", backup, "--no-archive", "--to", engine.data, ...accepted);
    await cp(join(lost, "pki"), join(engine.data, "pki"), { recursive: true });
    await engine.serve();
    return engine;
  }

  /** Starts one with some locks, and with the history of them. */
  static async start() {
    const engine = new Engine();
    engine.directory = await mkdtemp(join(tmpdir(), "surety-console-"));
    engine.data = join(engine.directory, "data");
    await engine.surety("init", "--data", engine.data, "--shards", "2");
    engine.settler = await StandIn.start();
    await engine.serve("--history", "--console-settler", engine.settler.address);
    for (const [partition, supplier, units] of [["0:1", "aa", "5e24"], ["0:1", "bb", "3e24"], ["1:1", "aa", "2.5e24"]]) {
      if (supplier === "aa") await engine.ctl("partition", "create", partition);
      await engine.ctl("deposit", partition, units, "--supplier", `0x${supplier.repeat(20)}`, "--nonce", supplier === "aa" ? "1" : "2");
    }
    await engine.ctl("withdraw", "0:1", "1e29", "--supplier", `0x${"bb".repeat(20)}`);
    await writeFile(join(engine.directory, "open.toml"), SCENARIO);
    await engine.surety("load", "--data", engine.data, "--scenario", join(engine.directory, "open.toml"), "--rate", "50", "--duration", "2s", "--no-view");
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "0", "--role", "admin", "--name", "second", "--out", engine.file("second"));
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "0", "--role", "admin", "--name", "third", "--out", engine.file("third"));
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "0", "--role", "admin,authorizer", "--name", "desk", "--out", engine.file("desk"));
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "1", "--role", "reader", "--name", "tenant", "--out", engine.file("tenant"));
    return engine;
  }

  async serve(...more) {
    const args = ["serve", "--data", this.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--console", "127.0.0.1:0", ...more];
    this.process = spawn(SURETY, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.process.stderr.resume();
    this.ready = JSON.parse(await firstLine(this.process));
  }

  file(name) {
    return join(this.directory, `${name}.pem`);
  }

  async surety(...args) {
    return (await run(SURETY, args, { maxBuffer: 64 << 20 })).stdout;
  }

  ctl(...args) {
    return this.surety("ctl", "--data", this.data, ...args);
  }

  /** A sign-in link of one of the engine's own identities, or of a file that was made above. */
  async link(who = "admin") {
    const identity = who === "admin" || who === "reader" ? ["--as", who] : ["--identity", this.file(who)];
    const answer = await this.surety("ctl", "--data", this.data, "--json", "console-link", ...identity);
    return JSON.parse(answer).url;
  }

  /** Waits until the history has everything that was decided by now. */
  async indexed() {
    const now = new Date().toISOString();
    const last = Date.now() + INDEXED_WITHIN_MS;
    for (;;) {
      const status = await this.surety("history", "status", "--data", this.data, "--json").then(lastLine, () => null);
      if (status !== null && status.complete_before > now) return;
      if (Date.now() > last) throw new Error(`the history is still not complete up to ${now}: ${JSON.stringify(status)}`);
    }
  }

  /** What a command of the history prints, line by line. */
  async history(...args) {
    const text = await this.surety("history", args[0], "--data", this.data, ...args.slice(1), "--json");
    return text.trim().split("\n").map((line) => JSON.parse(line));
  }

  /** Makes some locks, and finds one: its partition and its id. */
  async openLock() {
    await this.surety("load", "--data", this.data, "--scenario", join(this.directory, "open.toml"), "--rate", "50", "--duration", "1s", "--no-view");
    const text = await this.surety("ctl", "--data", this.data, "--json", "query", "--shard", "0", "--kind", "lock");
    const locks = text.split("\n").filter((line) => line.includes('"id"')).map((line) => JSON.parse(line));
    return locks.filter((lock) => lock.code === "APPROVED").at(-1);
  }

  /** Has merchants paid from collateral, and gives the record of one such payment. */
  async consumed() {
    await writeFile(join(this.directory, "consumed.toml"), CONSUMED);
    await this.surety("load", "--data", this.data, "--scenario", join(this.directory, "consumed.toml"), "--rate", "20", "--duration", "1s", "--no-view");
    await this.indexed();
    const records = await this.history("records", "--kind", "consume", "--code", "APPROVED", "--limit", "100");
    return records.filter((line) => line.kind === "consume").at(-1);
  }

  /** Has the authority sign a list by which one of the files that were made above is revoked. */
  async revoke(name) {
    const { serialNumber } = new X509Certificate(await readFile(this.file(name)));
    const file = (name) => join(this.directory, name);
    const config = `[ca]\ndefault_ca = own\n[own]\ndatabase = ${file("index.txt")}\ncrlnumber = ${file("crlnumber")}\ndefault_md = default\ndefault_crl_days = 1\n`;
    await writeFile(file("index.txt"), `R\t491231235959Z\t250101000000Z\t${serialNumber}\tunknown\t/CN=${name}\n`);
    await writeFile(file("crlnumber"), "01\n");
    await writeFile(file("ca.cnf"), config);
    const pki = (name) => join(this.data, "pki", name);
    await run("openssl", ["ca", "-gencrl", "-config", file("ca.cnf"), "-keyfile", pki("ca.key"), "-cert", pki("ca.pem"), "-out", pki("revoked.pem")]);
  }

  /** Asks the history's socket itself, and gives the answer; null where it closes without one. */
  async askHistory(question) {
    const socket = await this.historySocket();
    const body = Buffer.from(JSON.stringify({ of: null, ask: question }));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(body.length);
    socket.write(Buffer.concat([length, body]));
    let told = Buffer.alloc(0);
    try {
      for await (const bytes of socket) {
        told = Buffer.concat([told, bytes]);
        if (told.length >= 4 && told.length >= 4 + told.readUInt32LE()) return JSON.parse(told.subarray(4));
      }
    } catch {
      // Who has no room does not read.
    }
    return null;
  }

  historySocket() {
    return new Promise((resolve, reject) => {
      const socket = connect(join(this.data, "history.sock"));
      socket.once("error", reject);
      socket.once("connect", () => {
        // That it is closed is no news.
        socket.off("error", reject).on("error", () => {});
        resolve(socket);
      });
    });
  }

  /** Takes every place that the history has for questions. They are free again when the sockets are destroyed. */
  async crowd(held = []) {
    do held.push(await this.historySocket());
    while ((await this.askHistory({ locks: { limit: 1 } }))?.ok !== undefined);
    return held;
  }

  /** The processes that it has started: the one that keeps the history. */
  async children() {
    const tasks = await readdir(`/proc/${this.process.pid}/task`);
    const lists = tasks.map((task) => readFile(`/proc/${this.process.pid}/task/${task}/children`, "utf8").catch(() => ""));
    return (await Promise.all(lists)).flatMap((list) => list.trim().split(" ")).filter(Boolean).map(Number);
  }

  /** Ends it as a crash does. */
  async crash() {
    await this.end("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Sends a signal, and gives the status that it ends with. */
  async end(signal) {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill(signal);
    return ended;
  }

  async stop() {
    const status = await this.end("SIGTERM");
    await this.settler?.stop();
    await rm(this.directory, { recursive: true, force: true });
    return status;
  }
}

function lastLine(text) {
  return JSON.parse(text.trim().split("\n").at(-1));
}

function firstLine(process) {
  return new Promise((resolve, reject) => {
    let text = "";
    process.stdout.on("data", (bytes) => {
      text += bytes;
      if (text.includes("\n")) resolve(text.split("\n")[0]);
    });
    process.once("exit", (status) => reject(new Error(`serve ended with ${status}`)));
  });
}

// An engine with a console, as an operator starts it, and what the tests need of it.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
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

  /** Starts one with some locks, and with the history of them. */
  static async start() {
    const engine = new Engine();
    engine.directory = await mkdtemp(join(tmpdir(), "surety-console-"));
    engine.data = join(engine.directory, "data");
    await engine.surety("init", "--data", engine.data, "--shards", "2");
    await engine.serve("--history");
    for (const [partition, supplier, units] of [["0:1", "aa", "5e24"], ["0:1", "bb", "3e24"], ["1:1", "aa", "2.5e24"]]) {
      if (supplier === "aa") await engine.ctl("partition", "create", partition);
      await engine.ctl("deposit", partition, units, "--supplier", `0x${supplier.repeat(20)}`, "--nonce", supplier === "aa" ? "1" : "2");
    }
    await engine.ctl("withdraw", "0:1", "1e29", "--supplier", `0x${"bb".repeat(20)}`);
    await writeFile(join(engine.directory, "open.toml"), SCENARIO);
    await engine.surety("load", "--data", engine.data, "--scenario", join(engine.directory, "open.toml"), "--rate", "50", "--duration", "2s", "--no-view");
    await engine.surety("cert", "client", "--data", engine.data, "--tenant", "0", "--role", "admin", "--name", "second", "--out", engine.file("second"));
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

  async stop() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    const status = await ended;
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

// The console in a real browser, in front of a real engine: every page, every action, every refusal, a phone, the dark, and axe.
//
// SURETY names the program, CHROMIUM the browser; SCREENSHOTS a directory for pictures of every page. Without a browser it is said loudly that
// nothing was tested.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Engine } from "./engine.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const SCREENSHOTS = process.env.SCREENSHOTS;
const PHONE = { width: 390, height: 844 };
const DESK = { width: 1360, height: 900 };
/** The most that a first page may take on the wire, in bytes. */
const FIRST_PAGE_BYTES_MAX = 300_000;
const HISTORY = ["history", "history/locks", "history/open", "history/settlement", "history/audit"];
const PAGES = ["", "partitions", "partitions/0:1", "locks", ...HISTORY, "statement/partition/0:1", "settlement", "shards", "tenants", "approvals"];

test("the audit has every kind that an admin sends", async () => {
  const read = (path) => readFile(new URL(path, import.meta.url), "utf8");
  const protocol = await read("../../../protocol/src/kind.rs");
  const audit = (await read("../src/pages/history.tsx")).split('path: "audit"')[1].match(/kinds: \[(.*)\]/)[1];
  const kinds = [...protocol.matchAll(/= \d+, "(\w+)", Admin;/g)].map(([, kind]) => kind);
  assert.ok(kinds.length > 0);
  for (const kind of [...kinds, "loss", "start"]) assert.ok(audit.includes(`"${kind}"`), kind);
});

if (!existsSync(CHROMIUM)) {
  console.log(`SKIPPED: no browser at ${CHROMIUM}, so no page of the console was opened`);
} else {
  let engine;
  let browser;
  const axe = await readFile(createRequire(import.meta.url).resolve("axe-core"), "utf8");

  before(async () => {
    engine = await Engine.start();
    await engine.indexed();
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  });

  after(async () => {
    await browser?.close();
    assert.equal(await engine?.stop(), 0, "the engine ends as it should");
  });

  /** A browser of its own. Pages that are not built into the program yet can be tried with ASSETS: a directory of them. */
  async function stranger(options = {}) {
    const context = await browser.newContext({ viewport: DESK, ...options });
    if (process.env.ASSETS !== undefined) {
      await context.route(/\/console\/app\.(js|css)$/, async (route) => {
        const name = new URL(route.request().url()).pathname.split("/").at(-1);
        await route.fulfill({ response: await route.fetch(), path: `${process.env.ASSETS}/${name}` });
      });
    }
    return context;
  }

  /** A person with a browser of their own, signed in. Whatever the page complains about fails the test. */
  async function person(who = "admin", options = {}) {
    const context = await stranger(options);
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.complaints = [];
    page.on("pageerror", (error) => page.complaints.push(String(error)));
    // A refusal is shown on the page; a browser tells of it beside that.
    const isRefusal = (text) => /^Failed to load resource: the server responded with a status of 4/.test(text);
    page.on("console", (message) => message.type() === "error" && !isRefusal(message.text()) && page.complaints.push(message.text()));
    await page.goto(await engine.link(who));
    await confirm(page);
    await page.getByRole("navigation", { name: "Pages" }).waitFor();
    return page;
  }

  /** Says yes to being who the link says. */
  async function confirm(page) {
    await page.getByRole("heading", { name: "Is this you?" }).waitFor();
    await page.getByRole("button", { name: "Sign in" }).click();
  }

  /** Signs out, so that the next ones find room, and closes the browser. */
  async function leave(page) {
    await page.evaluate(() => document.querySelector("dialog[open]")?.close());
    await page.locator("header summary").click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in to Surety" }).waitFor();
    await page.context().close();
  }

  /** Goes to a page, and waits until it has something to show. */
  async function go(page, path) {
    await page.evaluate((path) => (location.hash = `#/${path}`), path);
    await page.locator("main h1").waitFor();
    if (path === "") await page.locator(".states").first().waitFor();
    if (path === "partitions") await page.locator("main tbody tr").first().waitFor();
    if (path.startsWith("partitions/")) await page.getByRole("heading", { name: "Policy" }).waitFor();
    if (path.startsWith("history")) await page.getByText(/^Indexed up to /).waitFor();
    if (path.startsWith("statement/")) await statement(page);
    if (path.startsWith("settlement")) await page.getByRole("list", { name: /^Batch / }).first().waitFor();
    if (path === "shards") await page.locator("#shard-1").waitFor();
    if (path === "tenants") await page.locator("main tbody tr").first().waitFor();
  }

  /** Has the statement of this page shown, of as long as there is one. */
  async function statement(page) {
    await page.getByRole("button", { name: "Show", exact: true }).click();
    await page.getByText(/The changes add up|Nothing changed/).waitFor();
  }

  /** How the next question of this page to the history is answered: status, and the name of a refusal. */
  async function answered(page) {
    const response = await page.waitForResponse((response) => response.url().endsWith("/api/history"));
    return [response.status(), response.ok() ? null : (await response.json()).error];
  }

  /** How many rows the table of this page has. */
  function rows(page) {
    return page.locator("main tbody tr");
  }

  async function shot(page, name) {
    if (SCREENSHOTS !== undefined) await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
  }

  async function sound(page, where) {
    // Not as a tag in the page: its own rules forbid that.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
    assert.deepEqual(found, [], `axe on ${where}`);
  }

  function uncomplaining(page) {
    assert.deepEqual(page.complaints, []);
  }

  test("every page, by day and by night, on a desk and on a phone, can be used by everybody", async () => {
    for (const colorScheme of ["light", "dark"]) {
      for (const [size, viewport] of [["desk", DESK], ["phone", PHONE]]) {
        const page = await person("admin", { viewport, colorScheme });
        for (const path of PAGES) {
          await go(page, path);
          await sound(page, `#/${path}, ${size}, ${colorScheme}`);
          const width = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(width <= viewport.width, `#/${path} is ${width} wide on a ${size}`);
          await shot(page, `${path.replace(/[/:]/g, "-") || "overview"}-${size}-${colorScheme}`);
        }
        uncomplaining(page);
        await leave(page);
      }
    }
  });

  test("a first page is small and soon there, from this server alone", async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    const network = await context.newCDPSession(page);
    await network.send("Network.enable");
    let bytes = 0;
    const hosts = new Set();
    network.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
    network.on("Network.requestWillBeSent", ({ request }) => request.url.startsWith("data:") || hosts.add(new URL(request.url).host));
    await page.goto(await engine.link());
    await confirm(page);
    await page.locator(".states").first().waitFor();
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    console.log(`first paint after ${Math.round(paint)} ms, ${bytes} bytes on the wire`);
    assert.ok(bytes <= FIRST_PAGE_BYTES_MAX, `${bytes} bytes`);
    assert.equal(hosts.size, 1);
    await leave(page);
  });

  test("a link opens the console once, and leaves nothing in the address", async () => {
    const link = await engine.link();
    const context = await stranger();
    const page = await context.newPage();
    await page.goto(link);
    await page.getByRole("heading", { name: "Is this you?" }).waitFor();
    assert.deepEqual(await context.cookies(), [], "nobody is signed in unasked");
    await sound(page, "the question who it is");
    await shot(page, "sign-in-asked");
    await confirm(page);
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    assert.ok(!page.url().includes("v1."), page.url());
    const cookies = await context.cookies();
    assert.ok(cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === "Strict"));
    assert.equal(await page.evaluate(() => document.cookie), "", "no script reads it");
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    // What the browser sends to every port of the host opens nothing.
    const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
    for (const path of ["session", "overview", "live", "proposals"]) {
      assert.equal((await fetch(new URL(`api/${path}`, engine.ready.console), { headers: { cookie } })).status, 401, path);
    }

    const thief = await (await stranger()).newPage();
    await thief.goto(link);
    await thief.getByRole("alert").getByText("used before").waitFor();
    await sound(thief, "the sign-in page, refused");
    await shot(thief, "sign-in-refused");
    await thief.getByLabel("Sign-in link").fill(await engine.link("reader"));
    await thief.getByRole("button", { name: "Sign in" }).click();
    await confirm(thief);
    await thief.getByRole("heading", { name: "Overview" }).waitFor();
    await leave(thief);

    await page.locator("summary").click();
    await shot(page, "who");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in to Surety" }).waitFor();
    await sound(page, "the sign-in page");
    await shot(page, "sign-in");
    await page.reload();
    await page.getByRole("heading", { name: "Sign in to Surety" }).waitFor();
    await context.close();
  });

  test("somebody else's link takes nobody's place unasked", async () => {
    const page = await person("admin");
    const link = await engine.link("tenant");
    await page.goto(link);
    await page.getByText("Somebody else is signed in").waitFor();
    await sound(page, "the question whose session ends");
    await shot(page, "sign-in-over");
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.locator("header summary").click();
    await page.locator("header").getByText("0, the operator").waitFor();
    await page.locator("header summary").click();
    await page.evaluate(() => (location.hash = "#v1.nothing"));
    await page.getByRole("alert").getByText("no sign-in link").waitFor();
    await page.evaluate(() => (location.hash = "#/%"));
    await page.getByText("There is no such page.").waitFor();
    await page.goto(link);
    await page.getByRole("button", { name: "End their session and sign in" }).click();
    await page.getByText("Tenant 1", { exact: true }).waitFor();
    uncomplaining(page);
    await leave(page);
  });

  test("the last base unit of a change is seen", async () => {
    await engine.surety("ctl", "--data", engine.data, "policy", "set", "0:1", "lock_max=1000000000000000001");
    const page = await person();
    await go(page, "partitions/0:1");
    await page.getByRole("button", { name: "Propose a change" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("lock_max").fill("1000000000000000002");
    await dialog.getByLabel("Why").fill("One more");
    await dialog.getByRole("button", { name: "Show the change" }).click();
    const [old, then] = [await dialog.locator("del").textContent(), await dialog.locator("ins").textContent()];
    assert.match(old, /^1\.000000000000000001 AMP \(.*001 base units\)$/);
    assert.match(then, /^1\.000000000000000002 AMP \(.*002 base units\)$/);
    await dialog.getByRole("button", { name: "Back" }).click();
    await dialog.getByRole("button", { name: "Cancel" }).click();
    uncomplaining(page);
    await leave(page);
  });

  test("a lock of an asset that cannot be read is shown in base units", async () => {
    const { partition, id } = await engine.openLock();
    const page = await person();
    await page.route(/\/partitions\/[^/]+$/, (route) => route.fulfill({ status: 503, json: { error: "UNREAD", words: "nothing" } }));
    await page.evaluate((path) => (location.hash = `#/${path}`), `locks/${partition}/${id}/1`);
    await page.getByText("holds collateral").waitFor();
    assert.match(await page.locator(".facts .money").first().textContent(), /base units$/);
    await page.unroute(/\/partitions\/[^/]+$/);
    await page.context().close();
  });

  test("a partition is frozen and unfrozen, by keyboard, with its reason", async () => {
    const page = await person();
    await go(page, "partitions/0:1");
    await page.getByRole("button", { name: "Freeze" }).focus();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Reason").fill("7");
    await sound(page, "the dialog");
    await shot(page, "freeze");
    await page.keyboard.press("Enter");
    await dialog.getByText("APPROVED").waitFor();
    await shot(page, "frozen");
    await dialog.getByRole("button", { name: "Close" }).click();
    await page.getByText("Frozen: new locks are declined.").waitFor();
    await go(page, "partitions");
    await page.locator("tr.trouble").getByText("frozen").waitFor();
    await go(page, "partitions/0:1");
    const log = await engine.surety("ctl", "--data", engine.data, "--json", "query", "--kind", "freeze");
    assert.match(log, /"reason":7\b/);
    await page.getByRole("button", { name: "Unfreeze" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Unfreeze" }).click();
    await page.getByRole("dialog").getByText("APPROVED").waitFor();
    uncomplaining(page);
    await leave(page);
  });

  test("a lock is found, and released by whom the engine allows it", async () => {
    const { partition, id } = await engine.openLock();
    const admin = await person();
    await go(admin, "locks");
    await admin.getByLabel("Partition").fill(partition);
    await admin.getByLabel("Id of its lock request").fill(id);
    await admin.getByRole("button", { name: "Look up" }).click();
    await admin.getByText("holds collateral").waitFor();
    await shot(admin, "lock");
    await admin.getByRole("button", { name: "Release" }).click();
    await admin.getByRole("dialog").getByLabel("Reason").fill("3");
    await admin.getByRole("dialog").getByRole("button", { name: "Release" }).click();
    await admin.getByRole("dialog").getByText("NO_RIGHT").waitFor();
    await shot(admin, "release-refused");
    await leave(admin);

    const desk = await person("desk");
    await go(desk, `locks/${partition}/${id}/1`);
    await desk.getByRole("button", { name: "Release" }).click();
    await desk.getByRole("dialog").getByLabel("Reason").fill("3");
    await desk.getByRole("dialog").getByRole("button", { name: "Release" }).dblclick();
    await desk.getByRole("dialog").getByText("APPROVED").waitFor();
    await desk.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await desk.getByText("given back by its tenant").waitFor();
    const released = await engine.surety("ctl", "--data", engine.data, "--json", "query", "--kind", "release", "--lock", id);
    assert.equal(released.split("\n").filter((line) => line.includes('"seq"')).length, 1, "a double click is one request");
    await engine.indexed();
    await desk.getByRole("button", { name: "Look again" }).click();
    await desk.waitForFunction(() => document.querySelectorAll("main tbody tr").length === 2);
    assert.deepEqual(await desk.locator('main tbody td[data-name="What"]').allTextContents(), ["lock", "release"]);
    assert.deepEqual(await desk.locator('main tbody td[data-name="State"]').allTextContents(), ["live", "released"]);
    await go(desk, `locks/${partition}/${id}/9`);
    await desk.getByText("NOT_FOUND").waitFor();
    uncomplaining(desk);
    await leave(desk);
  });

  test("a lock is found by its id alone, and what happened to it is told", async () => {
    const { partition, id } = await engine.openLock();
    await engine.indexed();
    const page = await person();
    await go(page, "locks");
    await page.getByLabel("Id of its lock request").fill(id);
    await page.getByRole("button", { name: "Look up" }).click();
    await page.getByText("holds collateral").waitFor();
    assert.ok(decodeURIComponent(page.url()).endsWith(`#/locks/${partition}/${id}/1`), page.url());
    await page.getByRole("heading", { name: "What happened to it" }).waitFor();
    await page.getByText("That is all.").waitFor();
    assert.equal(await rows(page).count(), 1);
    await page.getByRole("button", { name: /^Everything about record/ }).click();
    await page.getByText("The partition after it, in base units").waitFor();
    assert.ok((await page.locator(".everything").textContent()).includes(id));
    await sound(page, "a lock and its timeline");
    await shot(page, "lock-timeline");

    await go(page, "locks");
    await page.getByLabel("Id of its lock request").fill("0190a1b2-c3d4-7000-8000-000000000001");
    await page.getByRole("button", { name: "Look up" }).click();
    await page.getByText("The history knows no lock of this id").waitFor();
    uncomplaining(page);
    await leave(page);
  });

  test("what was declined is found by merchant and answer", async () => {
    const { partition } = await engine.openLock();
    await engine.ctl("partition", "freeze", partition, "--reason", "5");
    await engine.openLock();
    await engine.ctl("partition", "unfreeze", partition);
    await engine.indexed();
    const all = await engine.history("records", "--partition", partition, "--kind", "lock", "--code", "FROZEN", "--limit", "1000");
    const declined = all.filter((line) => line.code === "FROZEN");
    const merchant = declined[0].merchant;
    const wanted = declined.filter((record) => record.merchant === merchant);
    assert.ok(wanted.length < declined.length, "other merchants were declined as well");

    const page = await person();
    await go(page, "history");
    await page.getByLabel("Merchant", { exact: true }).fill(String(merchant));
    await page.getByRole("button", { name: "More conditions" }).click();
    await page.getByLabel("Answered").fill("FROZEN");
    await page.getByRole("button", { name: "Find" }).click();
    await page.waitForFunction((count) => document.querySelectorAll("main tbody tr").length === count, wanted.length);
    await page.getByText("That is all.").waitFor();
    assert.deepEqual(await page.locator('main tbody td[data-name="Answer"]').allTextContents(), wanted.map(() => "FROZEN"));
    assert.deepEqual(await page.locator('main tbody td[data-name="Merchant"]').allTextContents(), wanted.map(() => String(merchant)));
    assert.equal(await page.getByLabel("Answered").inputValue(), "FROZEN", "the form stays as it was filled in");
    await sound(page, "a search");
    await shot(page, "history-search");
    await page.getByLabel("Answered").fill("SUCH_A_THING");
    await page.getByRole("button", { name: "Find" }).click();
    await page.getByRole("alert").waitFor();
    await page.getByRole("link", { name: "Clear" }).click();
    await page.waitForFunction((count) => document.querySelectorAll("main tbody tr").length > count, wanted.length);
    uncomplaining(page);
    await leave(page);
  });

  test("a statement is shown and saved, and its changes add up", async () => {
    const { partition } = await engine.openLock();
    await engine.indexed();
    const page = await person();
    await go(page, `partitions/${partition}`);
    await page.getByRole("link", { name: "Statement" }).click();
    await statement(page);
    await page.getByRole("rowheader", { name: "Opening" }).waitFor();
    await page.getByRole("rowheader", { name: "Closing" }).waitFor();
    await sound(page, "a statement");
    await shot(page, "statement");
    const shown = (await rows(page).count()) - 2;
    await page.getByRole("button", { name: "As CSV" }).click();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: /^Save .*\.csv$/ }).click()]);
    const lines = (await readFile(await file.path(), "utf8")).trim().split("\n").map((line) => line.split(","));
    const [head, opening, ...records] = lines;
    const closing = records.pop();
    assert.deepEqual([head[0], opening[0], closing[0]], ["line", "opening", "closing"]);
    assert.ok(records.length > 0 && records.length === shown && records.every(([kind]) => kind === "record"), `${records.length} of ${shown}`);
    const names = head.filter((name) => name.endsWith("_change")).map((name) => name.slice(0, -"_change".length));
    assert.ok(names.includes("free") && names.includes("held"));
    for (const name of names) {
      const [change, after] = [head.indexOf(`${name}_change`), head.indexOf(name)];
      let running = BigInt(opening[after]);
      for (const record of records) {
        running += BigInt(record[change]);
        assert.equal(BigInt(record[after]), running, `${name} at seq ${record[3]}`);
      }
      assert.equal(BigInt(closing[after]), running, `${name} at the closing`);
    }
    assert.ok(BigInt(closing[head.indexOf("held")]) > 0n, "locks hold something");
    // The same period by the command line.
    const [told, ...printed] = await engine.history("statement", partition);
    assert.equal(told.opening.free, opening[head.indexOf("free")]);
    assert.ok(printed.length - 1 >= records.length);
    await page.getByRole("button", { name: "As JSON" }).click();
    await page.getByRole("link", { name: /^Save .*\.json$/ }).waitFor();
    uncomplaining(page);
    await leave(page);
  });

  test("what a partition's collateral is worth is told with its age", async () => {
    const page = await person();
    await go(page, "partitions/0:1");
    await page.getByText("Nobody has said what AMP is worth.").waitFor();
    await engine.ctl("price", "set", "4000", "--asset", "1", "--quote", "840");
    await engine.indexed();
    await page.reload();
    const price = page.locator("dd", { hasText: /^4\s000 base units for 10/ });
    await price.getByText(/, seen /).waitFor();
    await page.getByText("AMP in currency 840").waitFor();
    await sound(page, "prices");
    uncomplaining(page);
    await leave(page);
  });

  test("a partition's money is shown as it was at a moment", async () => {
    await engine.ctl("deposit", "0:1", "7", "--supplier", `0x${"aa".repeat(20)}`, "--nonce", "3");
    await engine.indexed();
    const records = await engine.history("records", "--partition", "0:1", "--kind", "deposit");
    const second = Date.parse(`${records[0].time.slice(0, 19)}Z`);
    const page = await person();
    await go(page, "partitions/0:1");
    /** What was there at a second, in base units; null if there was no such partition. */
    async function onChainAt(at) {
      await page.reload();
      const local = await page.evaluate((at) => {
        const date = new Date(at);
        return new Date(at - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
      }, at);
      // A browser leaves out seconds where they are zero.
      await page.getByLabel("When").fill(local.replace(/:00$/, ""));
      await page.getByRole("button", { name: "Show", exact: true }).click();
      const found = page.locator('dl.rules[aria-label^="As of"]');
      await found.or(page.getByText("It was not there at")).waitFor();
      if ((await found.count()) === 0) return null;
      const units = found.locator("div", { has: page.locator("dt", { hasText: /^on chain$/ }) }).locator("dd");
      return BigInt((await units.getAttribute("title")).replace(/[^0-9]/g, ""));
    }
    assert.equal(await onChainAt(Date.parse("2020-01-01T00:00:00Z")), null);
    // What there was at a moment is told once that has passed.
    while (Date.now() <= second + 1000) await new Promise((resolve) => setTimeout(resolve, 50));
    await engine.indexed();
    const before = await onChainAt(second);
    const after = await onChainAt(second + 1000);
    assert.equal(after - before, 7n);
    await sound(page, "a partition as of a moment");
    await shot(page, "partition-as-of");
    uncomplaining(page);
    await leave(page);
  });

  test("a lock tells of its certificate, and of the batch that has read what was consumed of it", async () => {
    const consumed = await engine.consumed();
    const { batches } = engine.settler.told;
    // Each has read one record more than the one before it; the fifth is the first that has this one.
    for (const batch of batches) batch.read = batch.read.map((_, shard) => String(shard === consumed.shard ? consumed.seq - 5 + batch.batch : 0));
    const page = await person();
    const path = `locks/${consumed.partition}/${consumed.lock}/${consumed.tenant}`;
    /** Waits until the console has asked the settler again, and shows the lock. */
    async function lock(isTold) {
      const isIn = (told) => told.batches.length === 0 ? isTold === null : told.batches[0].read[consumed.shard] === isTold;
      await page.waitForResponse(async (response) => response.url().endsWith("/api/settlement") && isIn((await response.json()).told ?? { batches: [] }));
      await page.evaluate((path) => (location.hash = `#/${path}`), path);
      await page.getByRole("heading", { name: "On chain" }).waitFor();
    }
    await go(page, "settlement");
    await lock(batches[0].read[consumed.shard]);
    await page.getByText("the lock did not ask for one").waitFor();
    await page.getByText(/read by batch 5, which is posted/).waitFor();
    await sound(page, "a lock whose batch is known");
    await shot(page, "lock-settled");
    await page.getByRole("link", { name: "batch 5" }).click();
    assert.equal(await page.locator("tr[aria-current=true] th").textContent(), "5");

    // It is not the newest that a settler who has just looked tells of: then, and only then, it is the next one's.
    const reads = batches.map((batch) => batch.read);
    /** Has every batch told to have read so far. */
    const readTo = (read) => batches.forEach((batch) => (batch.read = batch.read.map(() => read)));
    const early = String(consumed.seq - 1);
    const unknown = "by which batch it is read cannot be told now";
    for (const [read, turnAge, words] of [[early, 5, "to be read by the next batch"], [early, 600_000, unknown], [String(consumed.seq), 5, "read by batch 1, which is booked"]]) {
      readTo(read);
      engine.settler.told.turn_age_ms = turnAge;
      await page.evaluate(() => (location.hash = "#/settlement"));
      await page.waitForResponse(async (response) => response.url().endsWith("/api/settlement") && (await response.json()).told?.turn_age_ms === turnAge);
      await lock(read);
      await page.getByText(words).waitFor();
    }
    engine.settler.told.turn_age_ms = 5;
    batches.forEach((batch, at) => (batch.read = reads[at]));

    // The settler tells of it no more: then the history knows the earliest that it can have been.
    engine.settler.told.batches = [];
    const final = { shard: consumed.shard, seq: consumed.seq + 7, time: consumed.time, kind: "batch_final", code: "APPROVED", id: "-", partition: consumed.partition, batch: 12 };
    let isFinal = false;
    await page.route(/\/api\/history$/, async (route) => {
      const { ask } = route.request().postDataJSON();
      if (ask.locks !== undefined) {
        const response = await route.fetch();
        const page = await response.json();
        for (const row of page.rows) row.certified = row.called = true;
        return route.fulfill({ response, json: page });
      }
      if (!ask.records?.kind?.includes("batch_final")) return route.continue();
      await route.fulfill({ json: { rows: isFinal ? [final] : [], cursor: null, has_more: false, complete_before: null } });
    });
    await page.evaluate(() => (location.hash = "#/settlement"));
    await lock(null);
    await page.getByText(unknown).waitFor();
    await page.getByText("its merchant has presented it on chain, which decides").waitFor();
    isFinal = true;
    await page.reload();
    await page.getByText(/read by batch 12 at the earliest/).waitFor();
    await shot(page, "lock-called");
    engine.settler.told.batches = batches;
    uncomplaining(page);
    await leave(page);
  });

  test("a tenant reads what was consumed of its lock, and nothing of batches", async () => {
    const consumed = await engine.consumed();
    const page = await person("tenant");
    const asked = [];
    page.on("request", (request) => request.url().endsWith("/api/settlement") && asked.push(request.url()));
    await page.evaluate((path) => (location.hash = `#/${path}`), `locks/${consumed.partition}/${consumed.lock}`);
    const onChain = page.locator("section").filter({ has: page.getByRole("heading", { name: "On chain" }) });
    await onChain.getByText("Consumed", { exact: true }).waitFor();
    await onChain.locator(".money").waitFor();
    assert.doesNotMatch(await onChain.textContent(), /batch|told|…/);
    assert.deepEqual(asked, [], "it is not asked for what it may not see");
    await shot(page, "lock-tenant");
    uncomplaining(page);
    await leave(page);
  });

  test("a settler whose turns fail is said to, and how old things are is not told", async () => {
    const page = await person();
    await go(page, "settlement");
    const tile = (name) => page.locator(".tile").filter({ has: page.getByRole("heading", { name }) }).locator(".value");
    await page.getByText(/^As of the settler's last turn, [0-9]+ s ago, 3 transactions wait for a block\.$/).waitFor();
    assert.equal(await tile("Oldest not final").textContent(), "40 min");
    engine.settler.told.turn_age_ms = 600_000;
    await page.getByRole("alert").getByText(/last turn ended 10 min ago: what is shown is as of then/).waitFor();
    for (const name of ["Waits for a batch", "Oldest not final", "Newest block"]) assert.equal(await tile(name).textContent(), "–");
    await page.getByText("of 4 batches under way, as of then").waitFor();
    await page.getByRole("img", { name: /^Age of what is settled .* Batch not final –/ }).waitFor();
    assert.equal(await rows(page).count(), 7, "what was known last stays");
    await sound(page, "a settler whose turns fail");
    await shot(page, "settlement-old");
    // One that was told to look rarely has not failed by then.
    engine.settler.told.interval_ms = 600_000;
    await page.getByRole("alert").waitFor({ state: "detached" });
    await page.getByText(/^As of the settler's last turn, 10 min ago/).waitFor();
    [engine.settler.told.interval_ms, engine.settler.told.turn_age_ms] = [2_000, 5];
    await page.getByText(/^As of the settler's last turn, [0-9]+ s ago/).waitFor();
    uncomplaining(page);
    await leave(page);
  });

  test("batches are shown with how far they have come", async () => {
    const page = await person();
    await go(page, "settlement");
    const batch = (number) => page.locator("main tbody tr").filter({ has: page.getByRole("rowheader", { name: String(number), exact: true }) });
    for (const [number, stage] of [[7, "sealed"], [6, "posted"], [4, "mined"], [3, "final"], [1, "booked"]]) {
      await batch(number).getByRole("list", { name: `Batch ${number} is ${stage}` }).waitFor();
      assert.equal(await batch(number).locator("[aria-current=step]").textContent(), stage);
    }
    await batch(6).getByText("refused: the contract is paused").waitFor();
    assert.match(await batch(7).locator('[data-name="Pays out"]').textContent(), /^3\.25 AMP$/);
    await page.getByText("of 4 batches under way").waitFor();
    // How old they are is in the overview's past as well.
    await go(page, "");
    await page.getByRole("img", { name: /^Age of what is settled .* Batch not final 40 min/ }).waitFor();
    await go(page, "settlement/3");
    assert.equal(await page.locator("tr[aria-current=true] th").textContent(), "3");
    await go(page, "settlement/9");
    await page.getByText("Batch 9 is not among those").waitFor();
    await sound(page, "a batch that is not there");
    engine.settler.isWell = false;
    await page.getByRole("alert").getByText(/tells nothing of batches yet/).waitFor();
    await sound(page, "a settler that is away");
    await shot(page, "settlement-away");
    assert.equal(await rows(page).count(), 7, "what was known last stays");
    engine.settler.isWell = true;
    await page.getByRole("alert").waitFor({ state: "detached" });
    uncomplaining(page);
    await leave(page);
    const tenant = await person("tenant");
    await tenant.evaluate(() => (location.hash = "#/settlement"));
    await tenant.getByText("There is no such page.").waitFor();
    await leave(tenant);
  });

  test("a refusal of engine, history or session is said where it happens, and what can be done", async () => {
    const page = await person("third");
    await go(page, "partitions/0:1");
    // A form that was open for too long: ids count for minutes.
    await page.route(/\/api\/id$/, (route) => route.fulfill({ json: { id: "0190a1b2-c3d4-7000-8000-000000000001" } }));
    await page.getByRole("button", { name: "Freeze" }).click();
    await page.getByRole("dialog").getByLabel("Reason").fill("7");
    await page.getByRole("dialog").getByRole("button", { name: "Freeze" }).click();
    await page.getByRole("dialog").getByText("STALE_ID").waitFor();
    await shot(page, "refused-stale-id");
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await page.unroute(/\/api\/id$/);
    // Of a moment that is still to come nobody knows everything.
    await page.getByLabel("When").fill("2099-01-01T00:00:01");
    const early = answered(page);
    await page.getByRole("button", { name: "Show", exact: true }).click();
    assert.deepEqual(await early, [409, "NOT_COMPLETE"]);
    await page.getByRole("alert").getByText(/^Asked is what there was at 2(098|099)-.*known before .* only: ask for an earlier moment.* or again once that has come$/).waitFor();
    await sound(page, "a moment that is still to come");
    await shot(page, "refused-not-complete");

    /** What the page of the history is answered when it is opened. */
    async function opened() {
      await go(page, "shards");
      const answer = answered(page);
      await page.evaluate(() => (location.hash = "#/history"));
      return answer;
    }
    const leaving = await engine.crowd();
    try {
      // Whoever watches the history comes and goes: the place that it had may be another's.
      let code = await opened();
      for (; code[0] === 200; code = await opened()) await engine.crowd(leaving);
      assert.deepEqual(code, [429, "BUSY"]);
      await page.getByRole("alert").getByText("the history has no room for another question: ask again in a moment").waitFor();
      await sound(page, "a history that is busy");
      await shot(page, "refused-history-busy");
    } finally {
      leaving.forEach((held) => held.destroy());
    }
    await go(page, "shards");
    await go(page, "history");

    const [historian] = await engine.children();
    process.kill(historian, "SIGSTOP");
    try {
      assert.deepEqual(await opened(), [503, "HISTORY_AWAY"]);
      await page.getByRole("alert").getByText("the history does not answer within 5 s").waitFor();
      await sound(page, "a history that does not answer");
      await shot(page, "refused-history-away");
      await go(page, "partitions");
    } finally {
      process.kill(historian, "SIGCONT");
    }
    await go(page, "history");

    // A certificate that is revoked ends its session, also on a page that nobody touches.
    await engine.revoke("third");
    engine.process.kill("SIGHUP");
    await page.getByRole("heading", { name: "Sign in to Surety" }).waitFor();
    await shot(page, "session-revoked");
    await page.context().close();
  });

  test("an engine that is gone is said to be", async () => {
    const bare = await Engine.startBare();
    const context = await stranger();
    const page = await context.newPage();
    await page.goto(await bare.link());
    await confirm(page);
    await page.getByRole("status").getByText("Serving").or(page.getByText("Serving", { exact: true })).first().waitFor();
    await bare.crash();
    await page.getByText("No connection", { exact: true }).waitFor();
    await page.getByRole("link", { name: "Tenants" }).click();
    await page.getByRole("alert").getByText("The console does not answer").waitFor();
    await sound(page, "an engine that is gone");
    await shot(page, "engine-gone");
    await context.close();
  });

  test("what was not reconciled since a loss is told wherever it is shown", async () => {
    const lost = await Engine.startLost();
    try {
      const context = await stranger();
      const page = await context.newPage();
      page.setDefaultTimeout(30_000);
      await page.goto(await lost.link());
      await confirm(page);
      await page.getByText("1 partition is not reconciled since a loss").waitFor();
      await sound(page, "an overview after a loss");
      await shot(page, "overview-lost");
      await go(page, "partitions");
      await page.locator("tr.trouble").getByText("unreconciled", { exact: true }).waitFor();
      await shot(page, "partitions-lost");
      await go(page, "partitions/0:1");
      await page.getByText("these are the sums of a backup").waitFor();
      await sound(page, "a partition after a loss");
      await shot(page, "partition-lost");
      await context.close();
    } finally {
      assert.equal(await lost.stop(), 0);
    }
  });

  test("the way through the pages is found by Tab and Enter alone", async () => {
    const page = await person();
    await go(page, "");
    /** Presses Tab until something of this name has the focus. */
    async function tabTo(name) {
      for (let steps = 0; steps < 120; steps++) {
        await page.keyboard.press("Tab");
        const text = await page.evaluate(() => {
          const { activeElement: here } = document;
          const label = here.labels?.[0]?.textContent ?? here.getAttribute("aria-label") ?? here.textContent;
          return label.trim();
        });
        if (text === name) return;
      }
      assert.fail(`Tab does not lead to ${name}`);
    }
    await tabTo("Skip to content");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await tabTo("Partitions");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Partitions", exact: true }).waitFor();
    await page.locator("main tbody tr").first().waitFor();
    await tabTo("0:1");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Policy" }).waitFor();
    await tabTo("Freeze");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await tabTo("Reason");
    await page.keyboard.type("9");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Freeze", "the focus comes back to where it was");
    await tabTo("Settlement");
    await page.keyboard.press("Enter");
    await page.getByRole("list", { name: /^Batch / }).first().waitFor();
    await tabTo("Who is signed in");
    await page.keyboard.press("Enter");
    await tabTo("Sign out");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Sign in to Surety" }).waitFor();
    await page.context().close();
  });

  test("what suppliers and merchants have is told over time", async () => {
    const { partition } = await engine.consumed();
    const { suppliers } = JSON.parse(await engine.ctl("--json", "supplier", partition));
    const { supplier } = suppliers[0];
    const page = await person();
    await go(page, `partitions/${partition}`);
    await page.getByRole("button", { name: /^Rewards and losses of/ }).first().click();
    await page.getByLabel("Since the beginning").getByText("Put in").waitFor();
    const lost = page.getByLabel("Since the beginning").locator("div", { has: page.locator("dt", { hasText: "Lost" }) }).locator("dd");
    assert.notEqual(await lost.textContent(), "0 AMP", "merchants were paid from its collateral");
    await sound(page, "rewards and losses");
    await shot(page, "supplier-earned");
    await page.getByLabel("Whose").selectOption(supplier);
    await page.getByLabel("When").fill("2020-01-01T00:00:01");
    await page.getByRole("button", { name: "Show", exact: true }).click();
    await page.getByText("It was not there at").waitFor();
    await go(page, `statement/supplier/${partition}/${supplier}`);
    await page.getByRole("rowheader", { name: "Closing" }).waitFor();
    await sound(page, "a supplier's statement");
    await shot(page, "statement-supplier");
    const [lock] = await engine.history("records", "--kind", "lock", "--code", "APPROVED", "--limit", "1");
    await go(page, `statement/merchant/1/${lock.merchant}`);
    await page.getByRole("rowheader", { name: "Closing" }).waitFor();
    await sound(page, "a merchant's statement");
    await shot(page, "statement-merchant");
    uncomplaining(page);
    await leave(page);
  });

  test("the audit tells reasons, releases and starts of the engine", async () => {
    await engine.ctl("partition", "freeze", "1:1", "--reason", "41");
    await engine.ctl("partition", "unfreeze", "1:1");
    await engine.indexed();
    const page = await person();
    await go(page, "history/audit");
    // By its cell: a seq or a second may read 41 too.
    const freeze = rows(page).filter({ has: page.locator('[data-name="Reason"]', { hasText: /^41$/ }) });
    assert.equal(await freeze.first().locator('[data-name="What"]').textContent(), "freeze");
    await page.getByLabel("Kind").selectOption("start");
    await page.getByRole("button", { name: "Find" }).click();
    await page.waitForFunction(() => [...document.querySelectorAll('main tbody [data-name="What"]')].every((cell) => cell.textContent === "start"));
    await page.getByText("That is all.").waitFor();
    assert.equal(await rows(page).count(), 2, "one of each shard");
    await shot(page, "audit-starts");
    uncomplaining(page);
    await leave(page);
  });

  test("a policy takes two people", async () => {
    const one = await person();
    await go(one, "partitions/1:1");
    await one.getByRole("button", { name: "Propose a change" }).click();
    const dialog = one.getByRole("dialog");
    await dialog.getByLabel("life_default").fill("soon");
    await dialog.getByLabel("Why").fill("Shorter lives for taps");
    await dialog.getByRole("button", { name: "Show the change" }).click();
    await dialog.getByRole("alert").waitFor();
    await dialog.getByLabel("life_default").fill("45s");
    await sound(one, "the editor");
    await shot(one, "propose");
    await dialog.getByRole("button", { name: "Show the change" }).click();
    await dialog.locator("ins", { hasText: "45s" }).waitFor();
    await shot(one, "propose-diff");
    await dialog.getByRole("button", { name: "Propose" }).click();
    await dialog.getByText("waits for a second person").waitFor();
    await dialog.getByRole("link", { name: "Approvals" }).click();
    await one.getByText("It takes a second person").waitFor();
    assert.equal(await one.getByRole("button", { name: "Approve" }).count(), 0);
    await shot(one, "approvals-own");

    const two = await person("second");
    await go(two, "approvals");
    await two.getByRole("button", { name: "Approve" }).click();
    await sound(two, "the approval");
    await shot(two, "approve");
    await two.getByRole("dialog").getByRole("button", { name: "Approve" }).click();
    await two.getByRole("dialog").getByText("APPROVED").waitFor();
    await two.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await shot(two, "approved");
    const policy = await engine.surety("ctl", "--data", engine.data, "policy", "get", "1:1");
    assert.match(policy, /life_default = "45s"/);

    await go(one, "partitions/1:1");
    await one.getByRole("button", { name: "Propose a change" }).click();
    await one.getByRole("dialog").getByLabel("late_capture").selectOption("true");
    await one.getByRole("dialog").getByLabel("Why").fill("A second thought");
    await one.getByRole("dialog").getByRole("button", { name: "Show the change" }).click();
    await one.getByRole("dialog").getByRole("button", { name: "Propose" }).click();
    await one.getByRole("dialog").getByText("waits for a second person").waitFor();
    await engine.surety("ctl", "--data", engine.data, "policy", "set", "1:1", "life_default=50s");
    await go(two, "approvals");
    await two.reload();
    await two.getByRole("button", { name: "Approve" }).first().click();
    await two.getByRole("dialog").getByRole("button", { name: "Approve" }).click();
    await two.getByRole("dialog").getByText("has changed since it was proposed").waitFor();
    await shot(two, "approve-stale");
    await two.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await two.getByRole("button", { name: "Withdraw" }).click();
    await two.getByText("withdrawn").waitFor();
    uncomplaining(one);
    await leave(one);
    await leave(two);
  });

  test("who may only read is offered nothing to do, and a tenant nothing of others", async () => {
    const reader = await person("reader");
    await go(reader, "partitions/0:1");
    assert.equal(await reader.locator("main").getByRole("button", { name: /Freeze|Propose/ }).count(), 0);
    await leave(reader);
    const tenant = await person("tenant");
    await tenant.getByText("Connected", { exact: true }).waitFor();
    const pages = await tenant.getByRole("navigation", { name: "Pages" }).getByRole("link").allTextContents();
    assert.deepEqual(pages, ["Partitions", "Locks", "History", "Tenants"]);
    await go(tenant, "history");
    const views = await tenant.getByRole("navigation", { name: "Views of the history" }).getByRole("link").allTextContents();
    assert.deepEqual(views, ["Records", "Locks", "Open locks", "Audit"]);
    await tenant.getByRole("button", { name: /^Everything about record/ }).first().click();
    await tenant.getByText("The lock after it").waitFor();
    assert.equal(await tenant.getByText("The partition after it").count(), 0, "a partition's money is that of all its tenants");
    await tenant.evaluate(() => (location.hash = "#/statement/partition/0:1"));
    await tenant.getByRole("button", { name: "Show", exact: true }).click();
    await tenant.getByText(/are for the operator/).waitFor();
    await tenant.getByRole("link", { name: "Tenants" }).click();
    await tenant.locator("main tbody tr").first().waitFor();
    await tenant.evaluate(() => (location.hash = "#/shards"));
    await tenant.getByText("There is no such page.").waitFor();
    await shot(tenant, "tenant");
    await leave(tenant);
  });

  test("what happens is seen while it happens", async () => {
    const page = await person();
    await go(page, "");
    const load = engine.surety("load", "--data", engine.data, "--scenario", "tap", "--rate", "200", "--duration", "4s", "--no-view");
    await page.waitForFunction(() => Number(document.querySelector(".tile .value")?.textContent?.replace(/[^0-9]/g, "")) > 100);
    await shot(page, "overview-live");
    await load;
    uncomplaining(page);
    await leave(page);
  });

  test("over TLS somebody signs in by the certificate in their browser", async () => {
    const secured = await Engine.startSecured();
    try {
      const origin = new URL(secured.ready.console).origin;
      assert.match(origin, /^https:/);
      // The file holds the certificate and its key.
      const own = { origin, certPath: secured.file("olga"), keyPath: secured.file("olga") };
      for (const [clientCertificates, isKnown] of [[[own], true], [[], false]]) {
        // The engine's own authority is none that browsers know.
        const context = await stranger({ ignoreHTTPSErrors: true, clientCertificates });
        const page = await context.newPage();
        page.setDefaultTimeout(30_000);
        await page.goto(secured.ready.console);
        await page.getByRole("button", { name: "Sign in with my certificate" }).click();
        if (isKnown) {
          await page.getByRole("heading", { name: "Is this you?" }).waitFor();
          await page.getByText("olga").waitFor();
          await page.getByRole("button", { name: "Sign in" }).click();
          await page.getByRole("navigation", { name: "Pages" }).waitFor();
          const cookies = await context.cookies();
          await page.getByRole("link", { name: "Settlement" }).click();
          await page.getByRole("heading", { name: "No settler was named" }).waitFor();
          await sound(page, "the settlement of an engine without a settler");
          await shot(page, "settlement-unnamed");
          assert.ok(cookies.every(({ secure, httpOnly, name }) => secure && httpOnly && name.startsWith("__Host-")), JSON.stringify(cookies));
        } else {
          await page.getByText("has shown no certificate").waitFor();
          await sound(page, "sign-in over TLS");
          await shot(page, "sign-in-tls");
        }
        await context.close();
      }
    } finally {
      assert.equal(await secured.stop(), 0, "the engine ends as it should");
    }
  });
}

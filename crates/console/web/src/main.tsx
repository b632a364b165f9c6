// The whole page: who is signed in, where we are, and what is shown there.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Me, Refused, type Who, get, hasToken, look as lookAt, signIn, signOut, whenSignedOut } from "./api";
import "uplot/dist/uPlot.min.css";
import "./app.css";
import { short } from "./format";
import { useLive } from "./live";
import { Approvals } from "./pages/approvals";
import { HistoryPage } from "./pages/history";
import { Locks } from "./pages/locks";
import { Overview } from "./pages/overview";
import { PartitionPage } from "./pages/partition";
import { Partitions } from "./pages/partitions";
import { SettlementPage } from "./pages/settlement";
import { Shards } from "./pages/shards";
import { AskFirst, SignIn } from "./pages/sign-in";
import { StatementPage } from "./pages/statement";
import { Tenants } from "./pages/tenants";
import { Icon, Notice } from "./parts";

const PAGES = [
  { path: "", name: "Overview", icon: "pulse", operator: true },
  { path: "partitions", name: "Partitions", icon: "slices", operator: false },
  { path: "locks", name: "Locks", icon: "lock", operator: false },
  { path: "history", name: "History", icon: "past", operator: false },
  { path: "settlement", name: "Settlement", icon: "chain", operator: true },
  { path: "shards", name: "Shards", icon: "disks", operator: true },
  { path: "tenants", name: "Tenants", icon: "people", operator: false },
  { path: "approvals", name: "Approvals", icon: "check", operator: true },
] as const;

/** The way within the page: what stands behind "#/". */
function useRoute(): string[] {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** As it was written, where it is no encoding. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A sign-in link in the address. It is taken out at once, so that it stays in no history. */
function takeLink(): string | null {
  const fragment = location.hash.slice(1);
  if (!fragment.startsWith("v1.")) return null;
  history.replaceState(null, "", location.pathname);
  return fragment;
}

function App() {
  const [me, setMe] = useState<Me | null | undefined>(undefined);
  const [refused, setRefused] = useState<string | null>(null);
  const [asked, setAsked] = useState<{ link: string | null; who: Who } | null>(null);

  /** Somebody may have been given a link of another's: nobody is signed in before they were asked. */
  async function look(link: string | null) {
    setRefused(null);
    try {
      setAsked({ link, who: await lookAt(link) });
    } catch (error) {
      setRefused((error as Error).message);
    }
  }

  async function answered(isYes: boolean) {
    setRefused(null);
    try {
      if (isYes && asked !== null) setMe(await signIn(asked.link, asked.who));
    } catch (error) {
      setRefused((error as Error).message);
    }
    setAsked(null);
  }

  async function open(link: string | null) {
    try {
      setMe(hasToken() ? await get<Me>("session") : null);
    } catch (error) {
      setMe(null);
      if (error instanceof Refused && error.name !== "SIGNED_OUT") setRefused(error.message);
    }
    if (link !== null) await look(link);
  }

  useEffect(() => {
    whenSignedOut(() => setMe(null));
    void open(takeLink());
    // A link that is opened while the page is there changes the fragment alone.
    const opened = () => {
      const link = takeLink();
      if (link !== null) void look(link);
    };
    addEventListener("hashchange", opened);
    return () => removeEventListener("hashchange", opened);
  }, []);

  if (me === undefined) return <main class="blank" aria-busy="true" />;
  if (asked !== null) return <AskFirst who={asked.who} answered={answered} />;
  if (me === null) return <SignIn refused={refused} look={look} />;
  return <Signed me={me} refused={refused} />;
}

function Signed({ me, refused }: { me: Me; refused: string | null }) {
  const route = useRoute();
  const live = useLive(me);
  const pages = PAGES.filter((page) => (me.operator || !page.operator) && (me.history || page.path !== "history"));
  const here = route[0] ?? pages[0]!.path;
  // A statement stands behind the pages of whose it is.
  const page = here === "statement" && me.history ? { path: here, name: "Statement" } : pages.find((page) => page.path === here);

  useEffect(() => {
    document.title = `${page?.name ?? "Not found"} · Surety`;
    document.querySelector("main")?.scrollTo(0, 0);
  }, [route.join("/")]);

  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to content
      </a>
      <header class="bar">
        <a class="brand" href="#/" aria-label="Surety, overview">
          <img src="icon.svg" alt="" width="26" height="26" />
          <span>Surety</span>
        </a>
        <span class={`state ${live.lost ? "lost" : live.standing === null ? "" : live.standing.ready ? "up" : "down"}`} role="status">
          {live.lost ? "No connection" : live.standing === null ? "Connected" : live.standing.ready ? "Serving" : "Not serving"}
        </span>
        <details class="who">
          <summary aria-label="Who is signed in">
            <Icon name="person" />
            <span class="who-name">{me.operator ? "Operator" : `Tenant ${me.tenant}`}</span>
          </summary>
          <div class="card">
            <dl>
              <dt>Tenant</dt>
              <dd>{me.operator ? "0, the operator" : me.tenant}</dd>
              <dt>Roles</dt>
              <dd>{me.roles.join(", ")}</dd>
              <dt>Name</dt>
              <dd>{me.name}</dd>
              <dt>Principal</dt>
              <dd class="mono">{me.actor}</dd>
              <dt>Engine</dt>
              <dd class="mono" title={me.engine}>{short(me.engine)}</dd>
              <dt>Version</dt>
              <dd>{me.version}</dd>
            </dl>
            <button type="button" onClick={() => void signOut()}>Sign out</button>
          </div>
        </details>
      </header>
      <nav class="side" aria-label="Pages">
        {pages.map(({ path, name, icon }) => (
          <a key={path} href={`#/${path}`} aria-current={path === here ? "page" : undefined}>
            <Icon name={icon} />
            <span>{name}</span>
          </a>
        ))}
      </nav>
      <main id="main" tabIndex={-1}>
        {refused !== null && <Notice kind="bad">{refused}</Notice>}
        <Page route={route} here={page?.path} me={me} live={live} />
      </main>
    </div>
  );
}

function Page({ route, here, me, live }: { route: string[]; here: string | undefined; me: Me; live: ReturnType<typeof useLive> }) {
  switch (here) {
    case "":
      return <Overview live={live} me={me} />;
    case "partitions":
      return route[1] === undefined ? <Partitions me={me} /> : <PartitionPage key={route[1]} handle={route[1]} me={me} />;
    case "locks":
      return <Locks key={route.join("/")} me={me} partition={route[1]} lock={route[2]} tenant={route[3]} />;
    case "history":
      return <HistoryPage me={me} view={route[1]} form={route[2]} />;
    case "statement":
      return <StatementPage key={route.join("/")} me={me} route={route.slice(1)} />;
    case "settlement":
      return <SettlementPage me={me} live={live} batch={route[1]} />;
    case "shards":
      return <Shards live={live} me={me} />;
    case "tenants":
      return <Tenants />;
    case "approvals":
      return <Approvals me={me} />;
    default:
      return <Notice kind="bad">There is no such page. <a href="#/">Go to the overview.</a></Notice>;
  }
}

render(<App />, document.getElementById("app")!);

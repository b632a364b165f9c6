// Nobody is signed in: how to, and why it did not work; and who it would be, before it is so.

import { useState } from "preact/hooks";
import type { Who } from "../api";
import { Notice } from "../parts";

/** The link's own part of whatever was pasted. */
function linkIn(text: string): string {
  const trimmed = text.trim();
  const at = trimmed.indexOf("#v1.");
  return at < 0 ? trimmed : trimmed.slice(at + 1);
}

export function SignIn({ refused, look }: { refused: string | null; look: (link: string | null) => Promise<void> }) {
  const [link, setLink] = useState("");
  const [isBusy, setBusy] = useState(false);

  async function go(link: string | null) {
    setBusy(true);
    await look(link);
    setBusy(false);
  }

  function submit(event: Event) {
    event.preventDefault();
    void go(linkIn(link));
  }

  return (
    <main class="sign-in">
      <form class="card" onSubmit={submit}>
        <img src="icon.svg" alt="" width="44" height="44" />
        <h1>Sign in to Surety</h1>
        {refused !== null && <Notice kind="bad">{refused}</Notice>}
        {/* Only over TLS can a browser show one. */}
        {location.protocol === "https:" && (
          <>
            <p>With the certificate of the engine's authority that is in this browser:</p>
            <button type="button" class="solid" disabled={isBusy} onClick={() => void go(null)}>Sign in with my certificate</button>
            <hr />
          </>
        )}
        <p>Make a link where your identity file is. It opens this console once, within a minute.</p>
        <pre><code>surety ctl --data DIR console-link</code></pre>
        <div class="field">
          <label for="link">Sign-in link</label>
          <input id="link" value={link} onInput={(event) => setLink(event.currentTarget.value)} required autocomplete="off" spellcheck={false} placeholder={`${location.protocol}//…/console/#v1.…`} />
        </div>
        <button type="submit" class={location.protocol === "https:" ? "" : "solid"} disabled={isBusy || link.trim() === ""}>Sign in</button>
      </form>
    </main>
  );
}

/** Who it would be. Whoever was given another's link sees so here, before anything is done in that name. */
export function AskFirst({ who, answered }: { who: Who; answered: (isYes: boolean) => Promise<void> }) {
  const [isBusy, setBusy] = useState(false);

  async function submit(event: Event) {
    event.preventDefault();
    setBusy(true);
    await answered(true);
  }

  return (
    <main class="sign-in">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <img src="icon.svg" alt="" width="44" height="44" />
        <h1>Is this you?</h1>
        <dl class="facts">
          <dt>Name</dt>
          <dd>{who.name}</dd>
          <dt>Tenant</dt>
          <dd>{who.operator ? "0, the operator" : who.tenant}</dd>
          <dt>Roles</dt>
          <dd>{who.roles.join(", ")}</dd>
          <dt>Principal</dt>
          <dd class="mono">{who.actor}</dd>
        </dl>
        {who.over && <Notice kind="bad">Somebody else is signed in in this browser. Their session ends if you go on.</Notice>}
        <p>What you do is logged under this name. Go on only if you made the link yourself.</p>
        <div class="acts">
          <button type="button" onClick={() => void answered(false)}>Cancel</button>
          <button type="submit" class={who.over ? "danger solid" : "solid"} disabled={isBusy}>
            {who.over ? "End their session and sign in" : "Sign in"}
          </button>
        </div>
      </form>
    </main>
  );
}

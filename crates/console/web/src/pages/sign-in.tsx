// Nobody is signed in: how to, and why it did not work.

import { useState } from "preact/hooks";
import { Notice } from "../parts";

/** The link's own part of whatever was pasted. */
function linkIn(text: string): string {
  const trimmed = text.trim();
  const at = trimmed.indexOf("#v1.");
  return at < 0 ? trimmed : trimmed.slice(at + 1);
}

export function SignIn({ refused, signIn }: { refused: string | null; signIn: (link: string) => Promise<void> }) {
  const [link, setLink] = useState("");
  const [isBusy, setBusy] = useState(false);

  async function submit(event: Event) {
    event.preventDefault();
    setBusy(true);
    await signIn(linkIn(link));
    setBusy(false);
  }

  return (
    <main class="sign-in">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <img src="icon.svg" alt="" width="44" height="44" />
        <h1>Sign in to Surety</h1>
        {refused !== null && <Notice kind="bad">{refused}</Notice>}
        <p>Make a link where your identity file is. It opens this console once, within a minute.</p>
        <pre><code>surety ctl --data DIR console-link</code></pre>
        <div class="field">
          <label for="link">Sign-in link</label>
          <input id="link" value={link} onInput={(event) => setLink(event.currentTarget.value)} required autocomplete="off" spellcheck={false} placeholder="http://…/console/#v1.…" />
        </div>
        <button type="submit" class="solid" disabled={isBusy || link.trim() === ""}>Sign in</button>
      </form>
    </main>
  );
}

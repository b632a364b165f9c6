// Changes of policies that wait for a second person.

import { useState } from "preact/hooks";
import { type Me, type Outcome, type Proposal, post } from "../api";
import { assetOf, distance } from "../format";
import { usePolled } from "../live";
import { Act, Head, Notice, useNow } from "../parts";
import { Diff } from "./partition";

export function Approvals({ me }: { me: Me }) {
  const { value, error, again } = usePolled<{ proposals: Proposal[] }>("proposals");
  return (
    <>
      <Head title="Approvals" about="A policy is changed by two people: one proposes, another one approves." />
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {value !== null && value.proposals.length === 0 && <Notice kind="plain">Nothing waits. A change begins on a partition's page.</Notice>}
      {value?.proposals.map((proposal) => <One key={proposal.number} proposal={proposal} me={me} again={again} />)}
    </>
  );
}

function One({ proposal, me, again }: { proposal: Proposal; me: Me; again: () => void }) {
  const now = useNow();
  const [error, setError] = useState<string | null>(null);
  const isAdmin = me.roles.includes("admin");
  const isOpen = proposal.state === "open" || proposal.state === "sent";

  async function withdraw() {
    try {
      await post(`proposals/${proposal.number}/withdraw`);
      setError(null);
    } catch (error) {
      setError((error as Error).message);
    }
    again();
  }

  return (
    <section class="card" aria-labelledby={`proposal-${proposal.number}`}>
      <div class="row">
        <h2 id={`proposal-${proposal.number}`}>
          Proposal {proposal.number}: <a href={`#/partitions/${proposal.partition}`}>partition {proposal.partition}</a>{" "}
          <span class={`tag ${proposal.state === "approved" ? "good" : isOpen ? "warn" : "plain"}`}>{proposal.state}</span>
        </h2>
        {isOpen && isAdmin && (
          <div class="acts">
            <button type="button" onClick={() => void withdraw()}>Withdraw</button>
            {!proposal.own && (
              <Act name="Approve" title={`Set the policy of ${proposal.partition}?`} confirm="Approve" send={() => post<Outcome>(`proposals/${proposal.number}/approve`, { digest: proposal.digest })} done={again}>
                <Diff changes={proposal.changes} asset={assetOf(me.assets, proposal.asset)} />
                <p>The engine logs this change under your name.</p>
              </Act>
            )}
          </div>
        )}
      </div>
      <p>
        “{proposal.reason}” <span class="about">— {proposal.own ? "you" : <>{proposal.by_name} <span class="mono">{proposal.by}</span></>}, {distance(proposal.made, now)}</span>
      </p>
      <Diff changes={proposal.changes} asset={assetOf(me.assets, proposal.asset)} />
      {isOpen && proposal.own && <p class="about">It takes a second person to approve this: you have proposed it yourself. It is forgotten {distance(proposal.ends, now)}.</p>}
      {proposal.state === "sent" && <Notice kind="plain">It was approved, and its answer is not known: whoever approves or withdraws it now has the engine asked first what became of it.</Notice>}
      {proposal.state === "unclear" && <Notice kind="bad">It was approved, but neither the engine nor the policy tells any more whether it was ever in force: look into the log.</Notice>}
      {proposal.approved_by !== null && <p class="about">Approved by <span class="mono">{proposal.approved_by}</span>.</p>}
      {error !== null && <Notice kind="bad">{error}</Notice>}
    </section>
  );
}

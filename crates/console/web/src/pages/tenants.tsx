// Tenants: their quotas, and what they use of them.

import { type Tenant, type Use } from "../api";
import { count, grouped, percent, share } from "../format";
import { usePolled } from "../live";
import { useState } from "preact/hooks";
import { Head, Notice } from "../parts";

interface Page {
  tenants: Tenant[];
  next: string | null;
}

export function Tenants() {
  const [from, setFrom] = useState<string | null>(null);
  const { value, error } = usePolled<Page>(from === null ? "tenants" : `tenants?from=${from}`);
  return (
    <>
      <Head title="Tenants" about="Quotas hold on each shard." />
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {value !== null && value.tenants.length === 0 && <Notice kind="plain">There are no tenants that you may see. <code>surety ctl tenant set 7</code> makes one.</Notice>}
      {value !== null && value.tenants.length > 0 && (
        <div class="card flush">
          <table class="list">
            <caption class="sr">Tenants by shard</caption>
            <thead><tr><th scope="col">Tenant</th><th scope="col">Shard</th><th scope="col">Open</th><th scope="col">Locks</th><th scope="col">Ids</th><th scope="col">Tombstones</th><th scope="col">Advices</th><th scope="col">Limits</th></tr></thead>
            <tbody>
              {value.tenants.map((row) => (
                <tr key={`${row.tenant}.${row.shard}`}>
                  <th scope="row">{row.tenant}{!row.enabled && <span class="tag bad">shut out</span>}</th>
                  <td data-name="Shard">{row.shard}</td>
                  <Used name="Open" use={row.open_locks} />
                  <Used name="Locks" use={row.locks} />
                  <Used name="Ids" use={row.ids} />
                  <Used name="Tombstones" use={row.tombstones} />
                  <Used name="Advices" use={row.advices} />
                  <td data-name="Limits">{limits(row)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <p class="acts">
        {from !== null && <button type="button" onClick={() => setFrom(null)}>Back to the first</button>}
        {value?.next != null && <button type="button" onClick={() => setFrom(value.next)}>Next page</button>}
      </p>
    </>
  );
}

function Used({ name, use }: { name: string; use: Use }) {
  if (use.max === null) return <td data-name={name} title="without a limit">{grouped(use.used)}</td>;
  const part = share(use.used, use.max);
  return (
    <td data-name={name} title={`${grouped(use.used)} of ${grouped(use.max)}`}>
      <span>{grouped(use.used)} <span class={part > 80 ? "bad" : "about"}>{percent(part)}</span></span>
    </td>
  );
}

function limits(row: Tenant): string {
  const rate = row.rate_per_s > 0 ? `${count(row.rate_per_s)} requests/s` : "";
  const open = row.in_flight_max > 0 ? `${count(row.in_flight_max)} in flight` : "";
  return [rate, open].filter(Boolean).join(", ") || "none";
}

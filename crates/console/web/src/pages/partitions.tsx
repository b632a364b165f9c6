// All partitions that may be seen.

import { useState } from "preact/hooks";
import { type Me, type Partition, get } from "../api";
import { assetOf, percent, share, sum } from "../format";
import { usePolled } from "../live";
import { Head, Money, MoneyBar, Notice, hasTrouble } from "../parts";
import { STATES } from "../words";

interface Page {
  partitions: Partition[];
  next: string | null;
}

export function Partitions({ me }: { me: Me }) {
  const first = usePolled<Page>("partitions");
  const [more, setMore] = useState<Page[]>([]);
  const [error, setError] = useState<string | null>(null);
  const next = more.length > 0 ? more.at(-1)!.next : (first.value?.next ?? null);
  const rows = [...(first.value?.partitions ?? []), ...more.flatMap((page) => page.partitions)];

  async function showMore() {
    try {
      const page = await get<Page>(`partitions?from=${encodeURIComponent(next!)}`);
      setMore((pages) => [...pages, page]);
      setError(null);
    } catch (error) {
      setError((error as Error).message);
    }
  }

  return (
    <>
      <Head title="Partitions" about="Slices of collateral, each under its own rules." />
      {(error ?? first.error) !== null && <Notice kind="bad">{error ?? first.error}</Notice>}
      {first.value !== null && rows.length === 0 && (
        <Notice kind="plain">There are no partitions that you may see. <code>surety ctl partition create 0:1</code> makes one.</Notice>
      )}
      {rows.length > 0 && (
        <>
          <ul class="legend states-legend" aria-label="Colours of the bars">
            {STATES.map(({ key, name, about }) => <li key={key} title={about}><span class={`dot ${key}`} />{name}</li>)}
          </ul>
          <div class="card flush">
            <table class="list">
              <caption class="sr">Partitions with their collateral</caption>
              <thead>
                <tr><th scope="col">Partition</th><th scope="col">Collateral</th><th scope="col" class="wide">State</th><th scope="col">Free</th><th scope="col">In use</th></tr>
              </thead>
              <tbody>{rows.map((row) => <Row key={row.partition} row={row} me={me} />)}</tbody>
            </table>
          </div>
          {next !== null && <p><button type="button" onClick={() => void showMore()}>Show more</button></p>}
          {more.length > 0 && <p class="about">The first hundred are kept up to date; load the page again for the others.</p>}
        </>
      )}
    </>
  );
}

function Row({ row, me }: { row: Partition; me: Me }) {
  const asset = assetOf(me.assets, row.asset);
  const used = sum(row.held, row.captured, row.pending, row.owed);
  return (
    <tr class={hasTrouble(row) ? "trouble" : ""}>
      <th scope="row">
        <a href={`#/partitions/${row.partition}`}>{row.partition}</a>
        {row.unreconciled && <span class="tag bad">unreconciled</span>}
        {row.frozen && <span class="tag bad">frozen</span>}
        {row.deficit !== "0" && <span class="tag bad">deficit</span>}
        {row.exposure !== "0" && <span class="tag warn">exposure</span>}
      </th>
      <td data-name="Collateral"><Money units={row.collateral} asset={asset} places={0} /></td>
      <td data-name="State" class="wide"><MoneyBar of={row} /></td>
      <td data-name="Free"><Money units={row.free} asset={asset} places={0} /></td>
      <td data-name="In use">{percent(share(used, sum(used, row.free)))}</td>
    </tr>
  );
}

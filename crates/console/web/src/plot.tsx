// A plot over the last minutes. Its numbers stand beside it in words, for whoever does not see it.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Second } from "./api";

export interface Line {
  name: string;
  /** The colour's name in the style sheet. */
  color: string;
  of: (second: Second) => number | null;
}

const HEIGHT = 180;

function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function options(lines: Line[], label: (value: number) => string, isLog: boolean, width: number): uPlot.Options {
  const axis = { stroke: color("ink-2"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width,
    height: HEIGHT,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: {
      x: { time: true },
      y: isLog
        ? { distr: 3, range: (_, low, high) => [Math.max(1, 10 ** Math.floor(Math.log10(Math.max(1, low ?? 1)))), 10 ** Math.ceil(Math.log10(Math.max(10, high ?? 10)))] }
        : { range: (_, __, high) => [0, Math.max(high ?? 0, 1) * 1.1] },
    },
    axes: [
      { ...axis, size: 28, space: 80, values: (_, ticks) => ticks.map((tick) => clock(tick, (ticks.at(-1) ?? 0) - (ticks[0] ?? 0) < 240)) },
      { ...axis, size: 62, space: 32, ...(isLog ? { splits: powers } : {}), values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : label(tick))) },
    ],
    series: [{}, ...lines.map((line) => ({ label: line.name, stroke: color(line.color), width: 1.75, points: { show: true, size: 4, filter: alone } }))],
  };
}

/** Hours and minutes, with seconds where ticks are close. */
function clock(seconds: number, isClose: boolean): string {
  const parts = isClose ? ({ second: "2-digit" } as const) : {};
  return new Date(seconds * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...parts });
}

/** The powers of ten between two values. */
function powers(_: uPlot, __: number, low: number, high: number): number[] {
  const all = [];
  for (let power = 1; power <= high; power *= 10) if (power >= low) all.push(power);
  return all;
}

/** Values with nothing on either side: no line shows them. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  const isThere = (at: number) => values[at] != null;
  return [...values.keys()].filter((at) => isThere(at) && !isThere(at - 1) && !isThere(at + 1));
}

export function Plot({ title, seconds, lines, label, isLog = false }: {
  title: string;
  seconds: Second[];
  lines: Line[];
  label: (value: number) => string;
  isLog?: boolean;
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = useRef<uPlot.AlignedData>([[]]);
  data.current = [
    seconds.map((second) => second.at_ms / 1000),
    // A scale of powers has no place for nothing.
    ...lines.map((line) => seconds.map((second) => { const value = line.of(second); return isLog && value === 0 ? null : value; })),
  ];

  useEffect(() => {
    const make = () => {
      if (place.current === null) return;
      plot.current?.destroy();
      plot.current = new uPlot(options(lines, label, isLog, place.current.clientWidth), data.current, place.current);
    };
    make();
    const sizes = new ResizeObserver(() => {
      const width = place.current?.clientWidth ?? 0;
      if (plot.current !== null && width > 0 && width !== plot.current.width) plot.current.setSize({ width, height: HEIGHT });
    });
    if (place.current !== null) sizes.observe(place.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      sizes.disconnect();
      dark.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);

  useEffect(() => {
    plot.current?.setData(data.current);
  }, [seconds]);

  const newest = seconds.at(-1);
  const now = (line: Line) => {
    const value = newest === undefined ? null : line.of(newest);
    return value === null ? "–" : label(value);
  };
  return (
    <figure class="card plot">
      <figcaption>
        <h2>{title}</h2>
        <ul class="legend">
          {lines.map((line) => (
            <li key={line.name}>
              <span class="key" style={{ backgroundColor: `var(--${line.color})` }} />
              {line.name} <strong>{now(line)}</strong>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={place} class="canvas" role="img" aria-label={`${title} over the last 15 minutes. Now: ${lines.map((line) => `${line.name} ${now(line)}`).join(", ")}`} />
    </figure>
  );
}

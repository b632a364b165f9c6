// The live stream: the last fifteen minutes when a page opens, then a frame a second.

import { useEffect, useRef, useState } from "preact/hooks";
import { type Columns, type Frame, type Me, type Overview, type Second, type Standing, Refused, events, get } from "./api";

const SECONDS_MAX = 15 * 60;
/** Without a frame for so long the way to the engine is cut. */
const SILENCE_MS = 5000;
/** A stream that has ended is opened again after this. */
const AGAIN_MS = 2000;

export interface Live {
  seconds: Second[];
  standing: Standing | null;
  reasons: [string, number][];
  /** Nothing has come for some seconds. */
  lost: boolean;
}

const NOTHING: Live = { seconds: [], standing: null, reasons: [], lost: false };

/** The seconds that columns tell. */
function secondsOf({ reasons, ...columns }: Columns): Second[] {
  const codes = Object.entries(reasons);
  const times = columns.at_ms ?? [];
  return times.map((_, at) => ({
    ...(Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column[at]])) as unknown as Second),
    reasons: Object.fromEntries(codes.map(([code, column]) => [code, column[at]!])),
  }));
}

/** Follows the engine for as long as somebody is signed in. */
export function useLive(me: Me): Live {
  const [live, setLive] = useState<Live>(NOTHING);
  const heard = useRef(Date.now());

  useEffect(() => {
    let isOver = false;
    const add = (frame: Frame) => {
      heard.current = Date.now();
      setLive((live) => {
        const { second, standing, reasons } = frame;
        const last = live.seconds.at(-1)?.at_ms ?? 0;
        const seconds =
          second != null && second.at_ms > last ? [...live.seconds, second].slice(-SECONDS_MAX) : live.seconds;
        return { seconds, standing: standing ?? live.standing, reasons: reasons ?? live.reasons, lost: false };
      });
    };
    const fill = async () => {
      if (!me.operator) return;
      const past = await get<Overview>("overview", true).catch(() => null);
      if (past !== null && !isOver) setLive({ ...past, seconds: secondsOf(past.seconds), lost: false });
    };
    const cut = new AbortController();
    const follow = async () => {
      // Also after an interruption: what happened meanwhile is in the past.
      await fill();
      for await (const [name, data] of events("live", cut.signal)) {
        if (name === "end") {
          // Any question is answered with what has happened to the session.
          await get("session", true);
        } else {
          add(JSON.parse(data) as Frame);
        }
      }
    };
    const keepOn = async () => {
      while (!isOver) {
        const error = await follow().catch((error: unknown) => error);
        if (error instanceof Refused && error.name === "SIGNED_OUT") return;
        await new Promise((again) => setTimeout(again, AGAIN_MS));
      }
    };
    void keepOn();
    const watch = setInterval(() => {
      if (Date.now() - heard.current > SILENCE_MS) setLive((live) => (live.lost ? live : { ...live, lost: true }));
    }, 1000);
    return () => {
      isOver = true;
      cut.abort();
      clearInterval(watch);
    };
  }, [me]);

  return live;
}

/** Asks now, and again while the page is looked at. */
export function usePolled<T>(path: string | null, everyMs = 5000): { value: T | null; error: string | null; again: () => void } {
  const [state, setState] = useState<{ value: T | null; error: string | null }>({ value: null, error: null });
  const [turn, setTurn] = useState(0);

  useEffect(() => {
    if (path === null) return;
    let isOver = false;
    const ask = async (isPoll: boolean) => {
      try {
        const value = await get<T>(path, isPoll);
        if (!isOver) setState({ value, error: null });
      } catch (error) {
        if (!isOver) setState((state) => ({ ...state, error: (error as Error).message }));
      }
    };
    void ask(false);
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void ask(true);
    }, everyMs);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [path, turn]);

  return { ...state, again: () => setTurn((turn) => turn + 1) };
}

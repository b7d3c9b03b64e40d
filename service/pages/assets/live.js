// Follows a job by its events, or a list of jobs by the clock, and shows the page as it is then.
import { swap } from "./swap.js";

const GAP_MS = 400; // between two looks: events come in bursts
const KINDS = ["state", "progress", "points", "trial", "recommendation"];
const FINISHED = ["succeeded", "failed", "cancelled"];

let source = null;
let lastEvent = 0;
let looking = false;
let again = false;

async function look() {
  again = true;
  if (looking) return;
  looking = true;
  while (again) {
    again = false;
    try {
      const answer = await fetch(location.href);
      if (answer.ok) await swap(await answer.text());
      if (answer.status === 401) location.reload(); // to sign in again
    } catch {
      // the service is away for a moment; its next event, or the next look, brings all that was missed
    }
    await new Promise((resolve) => setTimeout(resolve, GAP_MS));
  }
  looking = false;
}

function told(event) {
  lastEvent = Number(event.lastEventId);
  const state = event.type === "state" && JSON.parse(event.data).state;
  if (FINISHED.includes(state)) stop();
  look();
}

function follow() {
  const url = document.querySelector("[data-events]")?.dataset.events;
  if (!url || source) return;
  const address = new URL(url, location.href);
  if (lastEvent) address.searchParams.set("after", lastEvent);
  source = new EventSource(address);
  for (const kind of KINDS) source.addEventListener(kind, told);
}

function stop() {
  source?.close();
  source = null;
  document.querySelector("[data-events]")?.removeAttribute("data-events");
}

// A page in the background holds no connection: browsers allow few to one host.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    follow();
    look();
  }
});

const polled = document.querySelector("[data-poll]");
if (polled) setInterval(() => document.hidden || look(), 1000 * Number(polled.dataset.poll));
follow();

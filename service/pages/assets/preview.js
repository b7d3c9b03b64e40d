// The form's cost, curl line and errors, told as it is filled in: the service's own answer to what would be sent.
import { swap } from "./swap.js";

const PAUSE_MS = 250; // after the last key
const form = document.getElementById("job");
let timer = 0;
let asked = 0;

async function preview() {
  const number = ++asked;
  const body = new URLSearchParams(new FormData(form));
  body.set("preview", "1");
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    const html = await answer.text();
    if (answer.ok && number === asked) await swap(html);
  } catch {
    // the service is away; what was shown last stays
  }
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(preview, PAUSE_MS);
});

const task = document.getElementById("task");
const choose = () => task.value === form.elements.task.value || task.form.submit();
task.addEventListener("change", choose);
choose(); // it may have been changed before this script came

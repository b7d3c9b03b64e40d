// Puts what the service renders anew in the place of what is shown: pages have no second way to be drawn.

const parser = new DOMParser();

/** Replace the contents of each [data-live] element that differs in `html`, once its pictures are loaded. */
export async function swap(html) {
  const fresh = parser.parseFromString(html, "text/html");
  const changed = [...document.querySelectorAll("[data-live]")]
    .map((shown) => [shown, fresh.getElementById(shown.id)])
    .filter(([shown, next]) => next && !same(shown, next));
  await Promise.all(changed.map(([shown, next]) => replace(shown, document.importNode(next, true))));
  return fresh;
}

function same(shown, next) {
  shown.rendered ??= shown.innerHTML; // as it came: what readers open or scroll is not a difference
  return shown.rendered === next.innerHTML && shown.hidden === next.hidden;
}

async function replace(shown, next) {
  const rendered = next.innerHTML;
  await Promise.all([...next.querySelectorAll("img:not([loading])")].map((image) => image.decode().catch(() => {})));
  const focused = shown.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...shown.querySelectorAll("details[open]")].length > 0;
  shown.replaceChildren(...next.childNodes);
  shown.hidden = next.hidden;
  shown.rendered = rendered;
  if (open) shown.querySelector("details")?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus();
}

// Buttons that copy the text they stand beside. They are shown only where there are scripts.

document.documentElement.classList.add("scripted");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  button.textContent = (await copied(source)) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

async function copied(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    // outside of https and loopback browsers have no clipboard: select the text instead
    getSelection().selectAllChildren(source);
    return false;
  }
}

// Shows beneath a scatter what the dot that is pointed at, or touched, stands for.

document.addEventListener("pointerover", (event) => {
  const dot = event.target.closest?.(".scatter circle");
  if (!dot) return;
  const figure = dot.closest("figure");
  figure.querySelector(".shown")?.classList.remove("shown");
  dot.classList.add("shown");
  figure.querySelector(".pointed").textContent = dot.textContent;
});

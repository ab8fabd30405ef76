// What has a data-key can be chosen. A button answers to Enter and the space bar by itself.
element.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-key]");
  if (chosen) trigger("pick", { key: chosen.dataset.key });
});

// A list that takes the place of the one that was chosen from: whoever uses the keyboard begins at its start, and
// whoever chose elsewhere on the page sees it.
watch("value", () => {
  const first = element.querySelector("[data-key]");
  if (!first) return;
  if (element.contains(document.activeElement)) first.focus();
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight * 0.8) element.scrollIntoView({ block: "start" });
});

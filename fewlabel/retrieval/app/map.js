// Near the pointer, the picture of the dot that it is on; with the keyboard, arrows go from dot to dot.
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MARGIN = 16;
let at = null;

function look(dot) {
  const picture = element.querySelector(".glimpse");
  if (!picture) return;
  picture.hidden = !dot;
  if (!dot) return;
  picture.src = `thumbnail/${dot.dataset.key}?${picture.dataset.stamp}`;
  const place = dot.getBoundingClientRect();
  const beside = place.right + MARGIN + picture.width < element.getBoundingClientRect().right;
  picture.style.left = `${beside ? place.right + MARGIN : place.left - MARGIN - picture.width}px`;
  picture.style.top = `${Math.min(place.top, window.innerHeight - picture.height - MARGIN)}px`;
}

function go(dot) {
  if (at) at.classList.remove("at");
  at = dot;
  if (at) at.classList.add("at");
  look(at);
}

function nearest(from, [right, down]) {
  let best = null, least = Infinity;
  for (const dot of element.querySelectorAll("circle[data-key]")) {
    const across = dot.cx.baseVal.value - from[0], below = dot.cy.baseVal.value - from[1];
    const ahead = across * right + below * down, aside = Math.abs(across * down) + Math.abs(below * right);
    // Of the dots in a cone ahead, the nearest.
    if (ahead > 0 && aside <= ahead && ahead + aside < least) [best, least] = [dot, ahead + aside];
  }
  return best;
}

element.addEventListener("mouseover", (event) => look(event.target.closest("circle[data-key]")));
element.addEventListener("mouseleave", () => look(null));
element.addEventListener("focusout", () => go(null));
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && at) trigger("pick", { key: at.dataset.key });
  const direction = DIRECTIONS[event.key];
  if (!direction) return;
  event.preventDefault();
  const mark = element.querySelector("circle.query");
  const start = at || mark;
  const from = start ? [start.cx.baseVal.value, start.cy.baseVal.value] : [500, 500];
  go(nearest(from, direction) || at);
});
watch("value", () => { at = null; look(null); });

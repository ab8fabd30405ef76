// Pictures of few pixels are shown as pixels, not blurred.
const enlarge = () => element.querySelectorAll("img").forEach((image) =>
  image.classList.toggle("tiny", image.naturalWidth > 0 && image.naturalWidth < 64));
element.addEventListener("load", enlarge, true);
watch("value", enlarge);

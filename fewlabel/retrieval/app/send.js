// Sends an image that was dropped here, pasted anywhere or chosen; the server answers with the word to ask for it by.
const input = element.querySelector("input");
const zone = element.querySelector("label");

async function send(file) {
  if (!file) return;
  zone.classList.add("sending");
  try {
    const headers = { "x-name": encodeURIComponent(file.name), "content-type": "application/octet-stream" };
    const answer = await fetch("image", { method: "POST", body: file, headers });
    trigger("sent", { status: answer.status, word: answer.ok ? await answer.text() : "", name: file.name });
  } catch {
    // The server has hung up on what is too large, or is gone.
    trigger("sent", { status: 0, word: "", name: file.name });
  }
  zone.classList.remove("sending");
}

input.addEventListener("change", () => {
  send(input.files[0]);
  // So that the same file can be chosen again.
  input.value = "";
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
zone.addEventListener("drop", (event) => send(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => {
  if (element.offsetParent) send(event.clipboardData.files[0]);
});

// Replaces the part of the page that changes, until the output is complete. The server has escaped what is in it.
const now = document.querySelector("#now");
const lost = document.querySelector("#lost");
const title = document.title;

async function look() {
  try {
    const answer = await fetch("now");
    if (!answer.ok) throw new Error(answer.statusText);
    now.innerHTML = await answer.text();
    lost.hidden = true;
  } catch (error) {
    lost.hidden = false;
  }
  wait();
}

function wait() {
  const { complete, percent } = now.firstElementChild.dataset;
  document.title = complete === "yes" ? title : `${percent} ${title}`;
  if (complete !== "yes" || !lost.hidden) setTimeout(look, 1000 * now.dataset.every);
}

wait();

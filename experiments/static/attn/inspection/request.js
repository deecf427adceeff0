// Questions over REST: one POST, then short polls until the answer is there.

export class Refused extends Error {}

const FIRST_MS = 40;
const SLOWEST_MS = 500;

// The answered question; throws Refused with a message for the user. `signal` aborts the wait.
export async function inspect(run, body, signal) {
  const token = document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
  let question = await send(`/api/v1/runs/${run}/questions/`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-CSRFToken": token },
    signal,
  });
  for (
    let pause = FIRST_MS;
    question.state === "waiting" || question.state === "answering";
    pause = Math.min(pause * 1.25, SLOWEST_MS)
  ) {
    await new Promise((done) => setTimeout(done, pause));
    question = await send(`/api/v1/questions/${question.id}/`, { signal });
  }
  if (question.state === "refused") throw new Refused(question.problem);
  return question;
}

async function send(address, options) {
  const answer = await fetch(address, { ...options, headers: { Accept: "application/json", ...options.headers } });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  const messages = (problem.errors ?? []).map((error) => `${error.pointer.slice(1)}: ${error.message}`);
  throw new Refused(messages.join("; ") || problem.detail || `the server answered ${answer.status}`);
}

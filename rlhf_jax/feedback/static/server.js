// Requests to the server, and the token of a login link.

export async function post(path, body = {}) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The server cannot be reached. Nothing is lost: try again.");
  }
  const answer = reply.status === 204 ? {} : await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const problem = new Error(answer.error || `The server answered ${reply.status}.`);
    throw Object.assign(problem, { status: reply.status, judged: answer.judged === true });
  }
  return answer;
}

// The token in "#token=..." of the address, or null. It is removed from the address bar and the history at once.
export function tokenOfLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", "/");
  return token;
}

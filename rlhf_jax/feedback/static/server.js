// Requests to the server, and the token of an invitation link.

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

// Logs in, and tells the other tabs: a browser has one session.
export async function logIn(token) {
  await post("/login", { token });
  sessions.postMessage("changed");
  location.replace("/");
}

export const sessions = new BroadcastChannel("session");

// The token in "#token=..." of a link, whatever stands around it; null where there is none.
export function tokenIn(text) {
  return /token=([\w-]+)/.exec(text.replaceAll("%3D", "="))?.[1] ?? null;
}

// Calls onToken(token) when the page is opened by an invitation link, now or later: a link that is pasted into an open
// page changes the address without loading it anew. Returns whether there is a token now. It is removed from the address
// bar and the history at once.
export function onLink(onToken) {
  const take = () => {
    const token = tokenIn(location.hash);
    if (token === null) return false;
    history.replaceState(null, "", location.pathname);
    onToken(token);
    return true;
  };
  addEventListener("hashchange", take);
  return take();
}

// Loads a login page once more. A browser that follows a link from another site leaves the session cookie out, and sends it
// when the page itself asks again.
export function askAgain() {
  if (location.search === "?again") history.replaceState(null, "", location.pathname);
  else location.replace(`${location.pathname}?again`);
}

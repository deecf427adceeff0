// The address holds the state of the view: controls write it, the server reads it on load.

export function remember(changes) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  history.replaceState(null, "", url.pathname + url.search.replaceAll("%2C", ",").replaceAll("%2F", "/") + url.hash);
}

export function recall(name, otherwise = "") {
  return new URL(location.href).searchParams.get(name) ?? otherwise;
}

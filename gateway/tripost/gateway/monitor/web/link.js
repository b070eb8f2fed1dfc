// A websocket that comes back by itself. After a loss it tries again, first soon, then later and later up to 15 s, each
// time at a random moment of that span, so that a hundred pages do not come back to a restarted gateway at once. A
// window that is looked at again, or a network that is back, tries at once.

const FIRST = 500;
const LONGEST = 15_000;
const OPENING = 10_000; // a server that says nothing for so long is tried anew

export class Link {
  /** `address()` is asked at every attempt; `heard(message)`; `changed({open, again})`, again in ms since the load. */
  constructor(address, heard, changed) {
    this.address = address;
    this.heard = heard;
    this.changed = changed;
    this.failures = 0;
    this.open = false;
    this.again = 0;
    this.closed = false;
    this.wake = () => this.again && !document.hidden && this.connect();
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.connect();
  }

  connect() {
    if (this.closed) return;
    clearTimeout(this.timer);
    this.again = 0;
    this.socket?.close();
    const socket = new WebSocket(new URL(this.address(), wsBase()));
    this.socket = socket;
    this.timer = setTimeout(() => socket.close(), OPENING);
    socket.onopen = () => {
      if (socket !== this.socket) return;
      clearTimeout(this.timer);
      this.open = true;
      this.changed({ open: true, again: 0 });
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.failures = 0;
      this.heard(JSON.parse(event.data));
    };
    socket.onclose = (event) => socket === this.socket && this.lost(event);
  }

  lost(event) {
    clearTimeout(this.timer);
    this.socket = null;
    this.open = false;
    if (this.closed) return;
    const most = Math.min(LONGEST, FIRST * 2 ** Math.min(this.failures++, 10));
    const wait = most / 2 + (Math.random() * most) / 2;
    this.again = performance.now() + wait;
    this.timer = setTimeout(() => this.connect(), wait);
    this.changed({ open: false, again: this.again, code: event.code, reason: event.reason });
  }

  /** For good. */
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    this.socket?.close();
  }
}

function wsBase() {
  const base = new URL(".", location.href);
  base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  base.hash = base.search = "";
  return base;
}

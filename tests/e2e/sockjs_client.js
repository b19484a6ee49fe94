// A SockJS client: node sockjs_client.js MODULE URL TRANSPORT... ; tells as JSON lines what happens.
// It sends a few messages, the next after the echo of the one before, and closes after the last.
const [module_, url, ...transports] = process.argv.slice(2);
const SockJS = require(module_);
const messages = ['hello', '\u00e4\u20ac\u{1f600} "quoted" \\ \u2028', '', 'x'.repeat(50000), 'last'];
const say = (...what) => console.log(JSON.stringify(what));
const socket = new SockJS(url, null, {transports, timeout: 10000});
let next = 0;
socket.onopen = () => { say('open', socket.transport); socket.send(messages[next]); };
socket.onmessage = e => {
  say('message', e.data === 'echo ' + messages[next]);
  next += 1;
  if (next < messages.length) socket.send(messages[next]);
  else if (process.env.ASK_CLOSE) socket.send('close');
  else socket.close(3001, 'enough');
};
socket.onclose = e => { say('close', e.code, e.reason); process.exit(0); };
setTimeout(() => { say('late'); process.exit(1); }, 30000);

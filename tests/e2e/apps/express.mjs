// A backend under Express with the GRIP libraries of npm. Arguments: its port, the server's
// publishing port, the key of Grip-Sig.

import express from 'express';
import { WebSocketMessageFormat } from '@fanoutio/grip';
import { ServeGrip } from '@fanoutio/serve-grip';

const [port, control, key] = process.argv.slice(2);
const grip = new ServeGrip({
    grip: { control_uri: `http://127.0.0.1:${control}/`, verify_iss: 'pushpin', verify_key: key },
});
const app = express();
app.use(grip);

app.get('/plain', async (req, res) => {
    const { isProxied, isSigned } = await grip.getPublisher().validateGripSig(req.get('Grip-Sig'));
    res.json({ proxied: isProxied, signed: isSigned });
});

app.get('/stream/:channel', (req, res) => {
    const instruct = res.grip.startInstruct();
    instruct.addChannel(req.params.channel);
    instruct.setHoldStream();
    instruct.setKeepAlive('ping\n', 1);
    res.type('text/plain').end('open\n');
});

app.get('/poll/:channel', (req, res) => {
    const instruct = res.grip.startInstruct();
    instruct.addChannel(req.params.channel);
    instruct.setHoldLongPoll(Number(req.query.timeout ?? 30));
    res.type('text/plain').end('nothing\n');
});

// Publishes the body in all formats.
app.post('/publish/:channel', express.text(), async (req, res) => {
    const publisher = grip.getPublisher();
    await publisher.publishHttpStream(req.params.channel, req.body);
    await publisher.publishHttpResponse(req.params.channel, req.body);
    await publisher.publishFormats(req.params.channel, new WebSocketMessageFormat(req.body));
    res.end('published\n');
});

// A WebSocket over HTTP: counts its messages in its meta data, answers each.
app.post('/ws/:channel', (req, res) => {
    const ws = req.grip.wsContext;
    if (ws == null) return res.status(400).end('not a WebSocket\n');
    if (ws.isOpening()) {
        ws.accept();
        ws.subscribe(req.params.channel);
        ws.meta.count = '0';
    }
    while (ws.canRecv()) {
        const message = ws.recv();
        if (message == null) {
            ws.close();
            break;
        }
        if (message === 'bye') {
            ws.close(4001);
            break;
        }
        ws.meta.count = String(Number(ws.meta.count) + 1);
        ws.send(`${ws.meta.count}: ${message}`);
    }
    res.end();
});

app.post('/echo', express.raw({ type: () => true, limit: '64mb' }), (req, res) => res.send(req.body));

// Chunks, each written a moment after the one before.
app.get('/chunks', (req, res) => {
    let n = 0;
    const next = () => {
        if (n === 5) return res.end();
        res.write(`piece ${n++}\n`);
        setTimeout(next, 10);
    };
    next();
});

// Half an answer, then a reset.
app.get('/cut', (req, res) => {
    res.set('Content-Length', '1000');
    res.write('half', () => res.socket.resetAndDestroy());
});

app.listen(Number(port), '127.0.0.1', () => console.log('listening'));

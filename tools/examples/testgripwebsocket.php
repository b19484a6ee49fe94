<?php
// A WebSocket on the channel `test`: the client gets everything that is published there, and what it
// says is said back. Publish with
//   pushpin-publish test hello

require __DIR__ . '/websocket_events.php';

$answers = [];
foreach (receive_events() as [$type, $content]) {
    if ($type === 'OPEN') {
        // Messages that begin with `c:` are for the proxy, the others for the client.
        header('Sec-WebSocket-Extensions: grip; message-prefix=""');
        $answers[] = event('OPEN');
        $answers[] = event('TEXT', 'c:' . json_encode(['type' => 'subscribe', 'channel' => 'test']));
    } elseif ($type === 'TEXT') {
        $answers[] = event('TEXT', $content);
    } elseif ($type === 'CLOSE') {
        $answers[] = event('CLOSE', $content);
    }
}
send_events($answers);

<?php
// A WebSocket that says back what it hears.

require __DIR__ . '/websocket_events.php';

$answers = [];
foreach (receive_events() as [$type, $content]) {
    switch ($type) {
        case 'OPEN':
            $answers[] = event('OPEN');
            break;
        case 'TEXT':
        case 'BINARY':
            $answers[] = event($type, $content);
            break;
        case 'PING':
            $answers[] = event('PONG', $content);
            break;
        case 'CLOSE':
            $answers[] = event('CLOSE', $content);
            break;
    }
}
send_events($answers);

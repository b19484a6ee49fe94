<?php
// What testwebsocket.php and testgripwebsocket.php share: WebSockets as requests, each of which brings
// the client's events and takes the server's (the route needs the option `over_http`).

const EVENTS = 'application/websocket-events';

// The events of a body: pairs of type and content, null where there is no content.
function parse_events(string $body): array
{
    $events = [];
    while (preg_match('/\A([A-Z-]+)(?: ([0-9a-fA-F]+))?\r\n/', $body, $head)) {
        $body = substr($body, strlen($head[0]));
        $content = null;
        if (isset($head[2])) {
            $size = hexdec($head[2]);
            $content = substr($body, 0, $size);
            $body = substr($body, $size + 2);
        }
        $events[] = [$head[1], $content];
    }
    return $events;
}

function event(string $type, ?string $content = null): string
{
    return $content === null ? "$type\r\n" : sprintf("%s %x\r\n%s\r\n", $type, strlen($content), $content);
}

// The client's events of this request, if it is one of a WebSocket; else ends with an error.
function receive_events(): array
{
    if (strpos($_SERVER['CONTENT_TYPE'] ?? '', EVENTS) !== 0) {
        http_response_code(400);
        echo "This is for WebSockets over HTTP: the route needs the option over_http.\n";
        exit;
    }
    return parse_events(file_get_contents('php://input'));
}

function send_events(array $events): void
{
    header('Content-Type: ' . EVENTS);
    echo implode('', $events);
}

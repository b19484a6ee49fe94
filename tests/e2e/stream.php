<?php
// The backend of the million-connections set-up: `php -S 127.0.0.1:PORT` in this folder.
// /stream.php?topic=NAME asks the proxy to hold the connection as an event stream, without a topic
// it answers plainly. /stream.php/fast wants a keep-alive every second, not every 55 seconds.

if (!isset($_GET['topic'])) {
    header('Content-Type: text/plain');
    echo "plain answer\n";
    return;
}

$timeout = strpos($_SERVER['REQUEST_URI'], '/stream.php/fast') === 0 ? 1 : 55;
header('Content-Type: text/event-stream');
header('Grip-Hold: stream');
header('Grip-Channel: ' . $_GET['topic']);
header('Grip-Keep-Alive: :\n\n; format=cstring; timeout=' . $timeout);
echo "event: open\ndata: welcome\n\n";
